//! Writes every guest as `<name>.wasm` into the directory given as argument, which may be new.

use std::error::Error;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    let directory = std::env::args_os()
        .nth(1)
        .ok_or("usage: export DIRECTORY")?;
    let directory = PathBuf::from(directory);
    std::fs::create_dir_all(&directory)?;
    for guest in shimwright_guests::ALL {
        std::fs::write(
            directory.join(format!("{}.wasm", guest.name())),
            guest.wasm(),
        )?;
    }
    Ok(())
}
