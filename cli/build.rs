//! Makes the first instructions of `cellblock_sys::start` the entry of the static program.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let cfg = |name: &str| std::env::var(format!("CARGO_CFG_TARGET_{name}")).unwrap_or_default();
    // The same condition as at the module.
    if cfg("ARCH") == "x86_64" && cfg("ENV") == "gnu" && cfg("FEATURE").split(',').any(|f| f == "crt-static") {
        println!("cargo:rustc-link-arg-bins=-Wl,--entry=cellblock_start");
    }
}
