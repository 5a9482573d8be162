//! `botdeck`: one program for every role. What it does is in the library; here is only how it starts and how it fails.

use std::process::ExitCode;

fn main() -> ExitCode {
    server::cli::main()
}
