//! The `dojoc` command.

mod cli;

/// Compiling makes many small objects, which this allocator makes and frees in a quarter less time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    cli::main()
}
