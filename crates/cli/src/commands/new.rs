//! `pgmend new NAME`.

use std::path::Path;

use pgmend_core::exit;

use crate::Done;
use crate::args::New;
use crate::scaffold;
use crate::shell::{Shell, quoted};

/// Scaffolds a job folder.
pub fn main(shell: &Shell, args: &New) -> Done {
    let files = scaffold::write(Path::new(&args.name))?;
    let made = serde_json::json!({ "folder": args.name, "files": files });
    shell.show(&made, |paint| {
        let files = files.join(", ");
        let folder = quoted(&args.name);
        let next = shell.line(&format!("pgmend plan {folder}"));
        format!(
            "made {folder}: {files}\n\n{}\n  write the statement into {folder}/change.sql, then type\n  {next}\n",
            paint.bold("NEXT")
        )
    })?;
    Ok(exit::DONE)
}
