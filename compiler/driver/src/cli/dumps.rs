//! Texts of a model on its way through the compiler, each in a file.

use std::path::PathBuf;

use dojoc::{CompileOptions, DumpAfter, Result};
use dojoc_compiler::io::IoError;
use dojoc_compiler::io::atomic::write_bytes_atomic;

/// Options about dumps.
#[derive(clap::Args, Clone, Debug)]
pub struct DumpArgs {
    /// Write the text after this pass or stage (tile, place, route, emit), or `all` of them, to the
    /// folder of --dump-dir.
    #[arg(long, value_name = "PASS|all")]
    pub dump_after: Option<String>,
    /// Folder of the dumps, which are named by number and pass.
    #[arg(
        long,
        value_name = "DIR",
        default_value = "dojoc-dump",
        requires = "dump_after"
    )]
    dump_dir: PathBuf,
}

impl DumpArgs {
    /// Adds the options to those of the facade.
    pub fn apply(&self, options: CompileOptions) -> CompileOptions {
        match self.dump_after.as_deref() {
            None => options,
            Some("all") => options.dump_after(DumpAfter::All),
            Some(pass) => options.dump_after(DumpAfter::Pass(pass.to_owned())),
        }
    }

    /// Where dumps go.
    pub fn dumps(&self) -> Dumps {
        Dumps {
            folder: self.dump_dir.clone(),
            count: 0,
            failure: None,
        }
    }
}

/// Writes dumps and remembers the first failure, since a pass cannot be told of it.
pub struct Dumps {
    folder: PathBuf,
    count: usize,
    failure: Option<IoError>,
}

impl Dumps {
    /// Writes the text after a pass.
    pub fn add(&mut self, pass: &str, text: &str) {
        self.count += 1;
        let folder = &self.folder;
        let path = folder.join(format!("{:02}-{pass}.dojo", self.count));
        let written = std::fs::create_dir_all(folder)
            .map_err(|error| IoError::writing(folder, &error))
            .and_then(|()| write_bytes_atomic(path, text.as_bytes()));
        if let Err(error) = written {
            self.failure.get_or_insert(error);
        }
    }

    /// Reports what could not be written.
    ///
    /// # Errors
    /// The first failure.
    pub fn finish(self) -> Result<()> {
        self.failure.map_or(Ok(()), |error| Err(error.into()))
    }
}
