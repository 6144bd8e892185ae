//! One figure of a machine: a value that knows its unit, where it comes from and how sure it is.

use toml::de::DeValue;

/// How far a figure can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Confidence {
    /// `T`: said by Tesla, its own text was read.
    Stated,
    /// `T2`: said by Tesla, read through press or published notes of the slides.
    StatedSecondHand,
    /// `M`: widely reported of Tesla's talk or article, whose text was not read.
    Reported,
    /// `I`: inferred by arithmetic or third-party analysis.
    Inferred,
    /// `P`: nothing is public; the value is proposed by whoever wrote the machine file.
    Proposed,
}

impl Confidence {
    /// All tags, surest first.
    pub const ALL: [Self; 5] = [
        Self::Stated,
        Self::StatedSecondHand,
        Self::Reported,
        Self::Inferred,
        Self::Proposed,
    ];

    /// The tag in machine files: `T`, `T2`, `M`, `I` or `P`.
    pub const fn tag(self) -> &'static str {
        match self {
            Self::Stated => "T",
            Self::StatedSecondHand => "T2",
            Self::Reported => "M",
            Self::Inferred => "I",
            Self::Proposed => "P",
        }
    }

    /// What the tag means, for legends.
    pub const fn meaning(self) -> &'static str {
        match self {
            Self::Stated => "said by Tesla, its own text was read",
            Self::StatedSecondHand => "said by Tesla, read through press or notes of the slides",
            Self::Reported => "widely reported of Tesla's talk or article, text not read",
            Self::Inferred => "inferred by arithmetic or third-party analysis",
            Self::Proposed => "nothing public, value proposed",
        }
    }

    /// The inverse of [`Confidence::tag`].
    pub fn from_tag(tag: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|c| c.tag() == tag)
    }
}

/// A value of a machine description with its provenance.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure<T> {
    /// The value, in the unit that [`FigureSpec::unit`] fixes for this figure.
    pub value: T,
    /// Keys into [`Machine::sources`](super::Machine::sources), at least one.
    pub sources: Vec<String>,
    /// How far the value can be trusted.
    pub confidence: Confidence,
    /// A remark of the file's author: the alternative reading, the derivation, the plausible range.
    pub note: Option<String>,
}

/// What the schema says about one figure.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FigureSpec {
    /// The key inside its section.
    pub key: &'static str,
    /// The unit a file must state; empty where the value is a name or a truth value.
    pub unit: &'static str,
    /// The range the value must lie in, ends included; `None` where it is no number.
    pub limits: Option<(f64, f64)>,
    /// One sentence on what the figure is.
    pub doc: &'static str,
}

/// A figure of whatever type, as text.
#[derive(Clone, Copy, Debug)]
pub struct FigureRow<'m> {
    /// What the schema says about it.
    pub spec: &'static FigureSpec,
    /// The value as a machine file would spell it.
    pub value: &'m dyn Datum,
    /// See [`Figure::sources`].
    pub sources: &'m [String],
    /// See [`Figure::confidence`].
    pub confidence: Confidence,
    /// See [`Figure::note`].
    pub note: Option<&'m str>,
}

/// Why a TOML value is not a figure's value.
#[derive(Debug)]
pub(super) enum Fault {
    /// Not of the type; holds what was expected.
    Type(String),
    /// Outside the limits; holds what is wrong.
    Range(String),
    /// Not one of the names; holds the names.
    Choice(String),
}

/// A type that figures can have: unsigned integers, numbers, truth values, names of a closed list,
/// and lists of these.
pub trait Datum: std::fmt::Debug {
    /// The value in canonical TOML spelling: the same value is always the same text.
    fn text(&self) -> String;
}

/// The reading half of [`Datum`], apart because it is not object safe.
pub(super) trait ReadDatum: Datum + Sized {
    fn read(value: &DeValue<'_>, spec: &FigureSpec) -> Result<Self, Fault>;
}

fn range_fault(spec: &FigureSpec, what: &str) -> Fault {
    let limits = spec
        .limits
        .map_or(String::new(), |(lo, hi)| format!(" {lo} to {hi}"));
    let unit = if spec.unit.is_empty() {
        String::new()
    } else {
        format!(" {}", spec.unit)
    };
    Fault::Range(format!("{what} is outside the range{limits}{unit}"))
}

fn read_integer(value: &DeValue<'_>, spec: &FigureSpec) -> Result<u64, Fault> {
    let DeValue::Integer(integer) = value else {
        return Err(Fault::Type("a whole number".into()));
    };
    let shown = integer.to_string();
    // An integer that does not even fit i128 is out of any range.
    let wide = i128::from_str_radix(integer.as_str(), integer.radix())
        .map_err(|_| range_fault(spec, &shown))?;
    let (lo, hi) = spec.limits.unwrap_or((0.0, u32::MAX.into()));
    match u64::try_from(wide) {
        Ok(v) if (lo as u64..=hi as u64).contains(&v) => Ok(v),
        _ => Err(range_fault(spec, &shown)),
    }
}

impl Datum for u32 {
    fn text(&self) -> String {
        self.to_string()
    }
}

impl ReadDatum for u32 {
    fn read(value: &DeValue<'_>, spec: &FigureSpec) -> Result<Self, Fault> {
        let wide = read_integer(value, spec)?;
        Self::try_from(wide).map_err(|_| range_fault(spec, &wide.to_string()))
    }
}

impl Datum for u64 {
    fn text(&self) -> String {
        self.to_string()
    }
}

impl ReadDatum for u64 {
    fn read(value: &DeValue<'_>, spec: &FigureSpec) -> Result<Self, Fault> {
        read_integer(value, spec)
    }
}

impl Datum for f64 {
    fn text(&self) -> String {
        format!("{self:?}")
    }
}

impl ReadDatum for f64 {
    fn read(value: &DeValue<'_>, spec: &FigureSpec) -> Result<Self, Fault> {
        let text = match value {
            DeValue::Float(float) => float.as_str(),
            DeValue::Integer(integer) if integer.radix() == 10 => integer.as_str(),
            _ => return Err(Fault::Type("a number".into())),
        };
        let (lo, hi) = spec.limits.unwrap_or((0.0, Self::MAX));
        match text.parse::<Self>() {
            // The range excludes NaN and the infinities.
            Ok(number) if (lo..=hi).contains(&number) => Ok(number),
            _ => Err(range_fault(spec, text)),
        }
    }
}

impl Datum for bool {
    fn text(&self) -> String {
        self.to_string()
    }
}

impl ReadDatum for bool {
    fn read(value: &DeValue<'_>, _: &FigureSpec) -> Result<Self, Fault> {
        value
            .as_bool()
            .ok_or_else(|| Fault::Type("true or false".into()))
    }
}

impl<T: Datum> Datum for Vec<T> {
    fn text(&self) -> String {
        let items: Vec<String> = self.iter().map(Datum::text).collect();
        format!("[{}]", items.join(", "))
    }
}

impl<T: ReadDatum + PartialEq> ReadDatum for Vec<T> {
    fn read(value: &DeValue<'_>, spec: &FigureSpec) -> Result<Self, Fault> {
        let Some(array) = value.as_array().filter(|a| !a.is_empty()) else {
            return Err(Fault::Type("a list of at least one value".into()));
        };
        let mut items = Self::new();
        for item in array.iter() {
            let item = T::read(item.get_ref(), spec)?;
            if items.contains(&item) {
                return Err(Fault::Range(format!(
                    "{} stands twice in the list",
                    item.text()
                )));
            }
            items.push(item);
        }
        Ok(items)
    }
}

/// Declares a closed list of names that a figure can have as its value.
macro_rules! choice {
    ($(#[$meta:meta])* $name:ident { $($(#[$vmeta:meta])* $variant:ident = $text:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name { $($(#[$vmeta])* $variant,)+ }

        impl $name {
            /// All choices.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name in machine files.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }

        impl $crate::machine::figure::Datum for $name {
            fn text(&self) -> String {
                format!("\"{}\"", self.name())
            }
        }

        impl $crate::machine::figure::ReadDatum for $name {
            fn read(
                value: &toml::de::DeValue<'_>,
                _: &$crate::machine::figure::FigureSpec,
            ) -> Result<Self, $crate::machine::figure::Fault> {
                use $crate::machine::figure::Fault;
                let text = value.as_str().ok_or_else(|| Fault::Type("a name in quotes".into()))?;
                Self::ALL.iter().copied().find(|c| c.name() == text).ok_or_else(|| {
                    let names: Vec<&str> = Self::ALL.iter().map(|c| c.name()).collect();
                    Fault::Choice(format!("`{text}` is not one of: {}", names.join(", ")))
                })
            }
        }
    };
}
pub(super) use choice;
