use super::*;

fn headers(lines: &[(&str, &str)]) -> HeaderMap {
    let parsed = lines
        .iter()
        .map(|(n, v)| (n.parse::<HeaderName>().expect("a name"), v.parse::<HeaderValue>().expect("a value")));
    let mut out = HeaderMap::new();
    for (name, value) in parsed {
        out.append(name, value);
    }
    out
}

#[test]
fn what_is_listed_as_for_this_connection_goes() {
    let mut all = headers(&[
        ("connection", "close, X-Own"),
        ("connection", "x-other,, content-length"),
        ("x-own", "1"),
        ("x-other", "1"),
        ("x-stays", "1"),
        ("content-length", "5"),
        ("te", "gzip, Trailers"),
        ("trailer", "x-sum"),
        ("keep-alive", "5"),
        ("proxy-connection", "close"),
        ("proxy-authorization", "Basic x"),
        ("expect", "100-continue"),
    ]);
    outgoing(&mut all);
    let left = headers(&[("x-stays", "1"), ("content-length", "5"), ("te", "trailers"), ("trailer", "x-sum")]);
    assert_eq!(all, left, "what says where the body ends is not the client's to remove");
}

#[test]
fn pieces_of_cookies_are_one_for_others() {
    let mut all = headers(&[("cookie", "a=1"), ("cookie", "b=2; c=3")]);
    outgoing(&mut all);
    assert_eq!(all, headers(&[("cookie", "a=1; b=2; c=3")]));
}

#[test]
fn a_target_is_written_as_its_version_has_it() {
    let host = HeaderValue::from_static("host.test:8443");
    let mut request = Request::get("https://Host.Test:8443/a?b").header("te", "trailers").body(()).expect("a request");
    address(&mut request, &host, false);
    assert_eq!((request.uri().to_string().as_str(), &request.headers()["host"]), ("/a?b", &host));
    assert_eq!(request.headers()["connection"], "te");
    address(&mut request, &host, true);
    assert_eq!(request.uri(), "https://host.test:8443/a?b");
    assert!(!request.headers().contains_key("host") && !request.headers().contains_key("connection"));
}
