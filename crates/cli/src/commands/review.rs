//! `pgmend review`: what somebody must look at because the glass was broken.

use pgmend::guard::ReviewItem;
use pgmend_core::exit;

use crate::Done;
use crate::args::Review;
use crate::shell::Shell;

/// Lists open reviews, or closes one.
pub async fn main(shell: &Shell, args: &Review) -> Done {
    let mut engine = shell.engine().await?;
    if let (Some(run), Some(note)) = (&args.run, &args.close) {
        engine.close_review(run, note).await?;
        shell.show(&serde_json::json!({ "closed": run }), |_| format!("the review of {run} is closed\n"))?;
        return Ok(exit::DONE);
    }
    let open = engine.open_reviews().await?;
    shell.show(&open, |_| if open.is_empty() { "no review is open\n".into() } else { lines(&open, shell) })?;
    Ok(exit::DONE)
}

/// One line for each open review, with what to type.
pub fn lines(open: &[ReviewItem], shell: &Shell) -> String {
    let line = |item: &ReviewItem| {
        let close = shell.line(&format!("pgmend review {} --close \"…\"", item.run_id));
        format!(
            "REVIEW  {} since {}: {}\n        another role than the one that ran it types: {close}\n",
            item.job, item.opened_at, item.why
        )
    };
    open.iter().map(line).collect()
}
