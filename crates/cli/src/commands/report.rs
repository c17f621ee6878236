//! `pgmend report RUN`.

use pgmend_core::exit;

use crate::Done;
use crate::args::Report;
use crate::shell::Shell;

/// The paper trail: Markdown, or the same as JSON.
pub async fn main(shell: &Shell, args: &Report) -> Done {
    let report = shell.engine().await?.report(&args.run).await?;
    shell.show(&report, |_| {
        let mut text = report.markdown();
        if !text.ends_with('\n') {
            text.push('\n');
        }
        text
    })?;
    Ok(exit::DONE)
}
