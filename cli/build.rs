//! Makes the first instructions of `cellblock_sys::start` the entry of the static program, and functions of `cellblock_sys` those of its C library.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // What `ci/dist` links with. A file that is not there would be one that has changed.
    for script in ["../ci/linker", "../ci/order.py"].into_iter().filter(|script| std::path::Path::new(script).exists())
    {
        println!("cargo:rerun-if-changed={script}");
    }
    let cfg = |name: &str| std::env::var(format!("CARGO_CFG_TARGET_{name}")).unwrap_or_default();
    if !cfg("FEATURE").split(',').any(|feature| feature == "crt-static") {
        return;
    }
    // The same conditions as there.
    let x86 = cfg("ARCH") == "x86_64";
    if x86 {
        println!("cargo:rustc-link-arg-bins=-Wl,--entry=cellblock_start");
    }
    if cfg("ENV") == "musl" {
        // What `cellblock_sys` has for functions of musl's. Said to the linker, for which of two archives comes first is luck.
        let copying = [
            ("memcpy", "cellblock_memmove"),
            ("memmove", "cellblock_memmove"),
            ("memcmp", "cellblock_memcmp"),
            ("bcmp", "cellblock_memcmp"),
        ];
        let ending = [("abort", "cellblock_abort")];
        for (theirs, ours) in copying.iter().filter(|_| x86).chain(&ending) {
            println!("cargo:rustc-link-arg-bins=-Wl,--undefined={ours},--defsym={theirs}={ours}");
        }
    }
}
