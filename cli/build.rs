//! Makes the first instructions of `cellblock_sys::start` the entry of the static program.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // What `ci/dist` links with. A file that is not there would be one that has changed.
    for script in ["../ci/linker", "../ci/order.py"].into_iter().filter(|script| std::path::Path::new(script).exists())
    {
        println!("cargo:rerun-if-changed={script}");
    }
    let cfg = |name: &str| std::env::var(format!("CARGO_CFG_TARGET_{name}")).unwrap_or_default();
    // The same condition as there.
    if cfg("ARCH") == "x86_64" && cfg("FEATURE").split(',').any(|f| f == "crt-static") {
        println!("cargo:rustc-link-arg-bins=-Wl,--entry=cellblock_start");
    }
}
