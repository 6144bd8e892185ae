//! `dojoc explain`.

use dojoc::{Diagnostic, codes};

use super::{Outcome, console};

/// Arguments of `dojoc explain`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// A code as messages have it, such as D0314; without it, all codes are listed.
    code: Option<String>,
}

/// Runs the command.
pub fn run(args: &Args) -> Outcome {
    let all = codes::all_codes();
    let Some(code) = &args.code else {
        let lines = all
            .iter()
            .map(|info| format!("D{:04}  {}\n", info.code, info.title));
        return console::print(&lines.collect::<String>());
    };
    let digits = code.trim_start_matches(['D', 'd']);
    let number: Option<u16> = digits.parse().ok();
    let Some(info) = all.iter().find(|info| Some(info.code) == number) else {
        let message = format!("there is no code `{code}`");
        let help = "a code is D and four digits; `dojoc explain` lists all";
        return Err(Diagnostic::input(codes::UNKNOWN_WORD, message)
            .help(help)
            .into());
    };
    console::print(&format!(
        "D{:04}: {}\n\n{}\n",
        info.code,
        info.title,
        wrap(info.explanation, 80)
    ))
}

/// Breaks a text into lines of at most `width` letters, between words.
pub(super) fn wrap(text: &str, width: usize) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let fits = |line: &String| line.chars().count() + 1 + word.chars().count() <= width;
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if fits(line) => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_short_and_lose_nothing() {
        let wrapped = wrap("one two  three verylongword", 8);
        assert_eq!(wrapped, "one two\nthree\nverylongword");
    }
}
