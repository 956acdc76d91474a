//! Conditions, reasons and annotations as a page, for people who read about them.

use std::fmt::Write as _;

use crate::annotations;
use crate::condition::{ConditionType, Reason};

/// All conditions, reasons and annotations, as a page in Markdown.
pub fn reference_markdown() -> String {
    let mut page =
        "# Conditions and annotations of a DfsCluster\n\nMade by `cargo xtask generate` from what \
        the operator is compiled with.\n\n## Conditions\n\nEvery one is there from the first look \
        on, `Unknown` where it cannot be known. `kubectl wait dfsc/NAME --for=condition=Ready` waits \
        for one.\n\n| condition | what it says when it is `True` |\n|---|---|\n"
            .to_owned();
    // Writing to a string cannot fail.
    for kind in ConditionType::ALL {
        let _ = writeln!(page, "| `{kind}` | {} |", kind.meaning());
    }
    page.push_str(
        "\n## Reasons\n\nOf conditions; the list is closed. The message beside it names the object \
        and what to do.\n\n| reason | what it means |\n|---|---|\n",
    );
    for reason in Reason::ALL {
        let _ = writeln!(page, "| `{reason}` | {} |", reason.meaning());
    }
    page.push_str("\n## Annotations\n\n| annotation | on | what it does |\n|---|---|---|\n");
    for (name, whose, what) in annotations::ALL {
        let _ = writeln!(page, "| `{name}` | {whose} | {what} |");
    }
    page
}
