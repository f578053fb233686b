//! `tine explain`: what a program would give up, step by step, without serving it. What a step is in words is the plan's affair
//! ([`tine::Plan::explain`]); here are the flags, the lines, and what only the server knows of a child.

use std::fmt::Write as _;

use tine::{Abilities, By, Enforced, Explained, Explanation, Item, Listen, Step};

use super::serve;
use crate::environ;
use crate::exit::{self, Failure, Outcome};
use crate::flags::{self, Explain, Serve, Style};
use crate::page::paragraph;

/// Prints the plan.
pub fn explain(flags: &Explain) -> Outcome {
    let serving = &flags.serve;
    for word in &serving.addresses {
        word.parse::<Listen>().map_err(|why| {
            let form = "the program and its arguments follow '--', and an address may be left out: tine explain [OPTIONS] -- PROGRAM";
            Failure::operator(format_args!("explain: {why}; {form}"))
        })?;
    }
    let mut plan = serve::plan(serving)?;
    plan.programs = serve::programs(serving)?;
    let mut told = plan.explain(&Abilities::look()).map_err(|why| serve::wrong(serving, why))?;
    add_descriptors(&mut told, serving);
    if flags.json {
        return exit::print_json(&told);
    }
    exit::print(page(&told).as_bytes())
}

/// Which descriptors a child has, and which variables: the server's part of it.
fn add_descriptors(told: &mut Explanation, flags: &Serve) {
    let third = flags.env == Style::Systemd;
    let stderr = match flags.stderr {
        flags::Stderr::Log => "standard error of tine",
        flags::Stderr::Socket => "the client",
        flags::Stderr::Null => "/dev/null",
    };
    let variables: Vec<_> = flags.variables.iter().map(|text| text.to_string_lossy().into_owned()).collect();
    for step in &mut told.steps {
        match step.step {
            Step::Descriptors if third => step.items.extend([
                Item::new(&["0"], "/dev/null"),
                Item::new(&["1"], "standard error of tine"),
                Item::new(&["2"], stderr),
                Item::new(&["3"], "the client"),
            ]),
            Step::Descriptors => {
                step.items.extend([Item::new(&["0", "1"], "the client"), Item::new(&["2"], stderr)])
            }
            Step::Exec => {
                let names = environ::names(flags.env).join(", ");
                let of_client =
                    if names.is_empty() { String::new() } else { format!(", and of {names} what is known") };
                step.items.push(Item::new(&["environment"], format!("PATH{of_client}")));
                if !variables.is_empty() {
                    let names: Vec<_> = variables.iter().map(String::as_str).collect();
                    step.items.push(Item::new(&names, "set: -E"));
                }
            }
            _ => {}
        }
    }
}

fn page(told: &Explanation) -> String {
    let mut page = String::new();
    paragraph(&mut page, &format!("Profile {}: ", told.profile), 2, &told.about);
    for (by, head) in [
        (By::Template, "The template does this once, and all children inherit it:"),
        (By::Child, "Each child does this, before it is the program:"),
    ] {
        let steps: Vec<_> = told.steps.iter().filter(|one| one.by == by).collect();
        if !steps.is_empty() {
            let _ = writeln!(page, "\n{head}"); // a String takes whatever is written to it
            steps.iter().enumerate().for_each(|(at, step)| tell(&mut page, at + 1, step));
        }
    }
    page.push('\n');
    let refused = told.missing.iter().any(|one| one.refuses);
    let verdict = match (told.starts, told.missing.is_empty()) {
        (true, true) => "This system enforces all of it.",
        (true, false) => "This system enforces it but for what is missing:",
        (false, _) if refused => {
            "This system cannot do it, and tine serve would not start; --confine-missing warn serves without what is missing:"
        }
        (false, true) => "tine serve would not start so here and now: see what is not enforced.",
        (false, false) => {
            "tine serve would not start so here and now: see what is not enforced. This is missing besides:"
        }
    };
    paragraph(&mut page, "", 0, verdict);
    for one in &told.missing {
        paragraph(&mut page, &format!("  {:<12}", one.layer.to_string()), 14, &one.what);
        paragraph(&mut page, &" ".repeat(14), 16, &format!("takes: {}", one.advice));
    }
    page
}

const INDENT: usize = 6;

fn tell(page: &mut String, number: usize, step: &Explained) {
    let head = format!("{number:>4}. {}: ", step.step);
    paragraph(page, &head, INDENT, &step.what);
    let blank = " ".repeat(INDENT);
    if step.enforced != Enforced::Full {
        let lacks: Vec<_> = step.missing.iter().map(|one| one.what.as_str()).collect();
        let lacks = if lacks.is_empty() { String::new() } else { format!(": {}", lacks.join("; ")) };
        paragraph(page, &blank, INDENT + 2, &format!("enforced {}{lacks}", step.enforced));
    } else {
        paragraph(page, &blank, INDENT + 2, "enforced in full");
    }
    if let Some(reason) = &step.reason {
        paragraph(page, &blank, INDENT + 2, &format!("why: {reason}"));
    }
    for item in &step.items {
        let when = item.when.as_ref().map_or(String::new(), |when| format!(" when {when}"));
        let what = if item.what.is_empty() { String::new() } else { format!(": {}", item.what) };
        paragraph(page, &format!("{blank}- "), INDENT + 4, &format!("{}{what}{when}", item.names.join(", ")));
        let inner = " ".repeat(INDENT + 4);
        if let Some(reason) = &item.reason {
            paragraph(page, &inner, INDENT + 6, &format!("why: {reason}"));
        }
        if !item.opened_by.is_empty() {
            paragraph(page, &inner, INDENT + 6, &format!("opened by: {}", item.opened_by.join(", ")));
        }
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;
    use tine::{Connect, Opens, Plan, Profile};

    use super::*;

    fn guarded(opens: Opens) -> Plan {
        Plan { profile: Profile::named("guarded").unwrap(), opens, ..Plan::default() }
    }

    /// What depends on the machine and on who runs this is left out: limits that were inherited, the user.
    fn of_template(plan: &Plan, abilities: &Abilities) -> String {
        let mut told = plan.explain(abilities).unwrap();
        told.steps.retain(|step| step.by == By::Template);
        for step in &mut told.steps {
            // Which devices there are is the machine's affair, how long the filter is the architecture's.
            step.items.iter_mut().for_each(|item| item.names.retain(|name| !name.starts_with("/dev/")));
            step.items.retain(|item| !item.names.is_empty());
            if let Some((before, rest)) = step.what.split_once("a program of ") {
                step.what =
                    format!("{before}a program of N {}", rest.split_once(' ').map_or("", |(_, rest)| rest));
            }
        }
        page(&told)
    }

    #[test]
    fn guarded_by_a_kernel_that_does_all_of_it() {
        assert_snapshot!(of_template(&guarded(Opens::default()), &Abilities::of_landlock(7)));
    }

    #[test]
    fn guarded_with_openings_by_linux_6_1() {
        let opens = Opens {
            connect: vec![Connect::Port(5432)],
            listen: true,
            calls: vec!["ptrace".into()],
            ..Opens::default()
        };
        assert_snapshot!(of_template(&guarded(opens), &Abilities::of_landlock(2)));
    }

    #[test]
    fn what_machines_read_has_all_that_is_printed() {
        let told = guarded(Opens::default()).explain(&Abilities::of_landlock(2)).unwrap();
        let json = serde_json::to_value(&told).unwrap();
        assert_eq!((&json["profile"], &json["starts"]), (&"guarded".into(), &true.into()));
        assert_eq!(json["steps"].as_array().unwrap().len(), told.steps.len());
        assert_eq!(json["steps"][0]["step"], "privileges");
        assert_eq!(json["steps"][0]["by"], "template");
        assert_eq!(json["steps"][1]["enforced"], "partly");
    }
}
