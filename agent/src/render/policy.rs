//! Policies, each ready to be pasted.

use shared::policy::Policy;

use super::Out;

/// Prints each policy under whom it is for.
pub fn policies(out: Out, policies: &[Policy]) {
    if policies.is_empty() {
        return;
    }
    out.line("policies for AWS IAM, each with no more than its holder needs:");
    for Policy { name, whom, document } in policies {
        out.line(format!("\n# {name}: for {whom}"));
        out.json(document);
    }
}
