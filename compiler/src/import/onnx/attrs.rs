//! Typed access to a node's attributes. What is never asked for is reported as not supported.

use dojoc_ir::diag::Kind;

use super::codes;
use super::node::NodeCx;
use super::problems::{NodeError, NodeResult};
use super::wire::{AttributeProto, AttributeType, GraphProto, TensorProto};

fn bad(message: String) -> NodeError {
    NodeError::new(codes::BAD_ATTRIBUTE, Kind::Input, message)
}

/// Which field holds the value, also for files that do not say.
fn kind(attribute: &AttributeProto) -> AttributeType {
    match AttributeType::try_from(attribute.r#type) {
        Ok(AttributeType::Undefined) => {}
        Ok(kind) => return kind,
        Err(_) => return AttributeType::Undefined,
    }
    let fields = [
        (attribute.f.is_some(), AttributeType::Float),
        (attribute.i.is_some(), AttributeType::Int),
        (attribute.s.is_some(), AttributeType::String),
        (attribute.t.is_some(), AttributeType::Tensor),
        (attribute.g.is_some(), AttributeType::Graph),
        (!attribute.floats.is_empty(), AttributeType::Floats),
        (!attribute.ints.is_empty(), AttributeType::Ints),
        (!attribute.strings.is_empty(), AttributeType::Strings),
    ];
    fields
        .iter()
        .find(|(present, _)| *present)
        .map_or(AttributeType::Undefined, |(_, kind)| *kind)
}

fn text(bytes: &[u8], name: &str) -> NodeResult<String> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.to_owned()),
        Err(_) => Err(bad(format!("attribute `{name}` is not UTF-8"))),
    }
}

impl<'m> NodeCx<'_, 'm> {
    /// The attribute of a name, looked up in the call where a function's body refers to it.
    fn find(&mut self, name: &str) -> Option<&'m AttributeProto> {
        let node = self.node;
        let position = node.attribute.iter().position(|a| a.name == name)?;
        self.read[position] = true;
        self.imp.resolve_attribute(&node.attribute[position])
    }

    fn of_kind(
        &mut self,
        name: &str,
        wanted: &[AttributeType],
    ) -> NodeResult<Option<&'m AttributeProto>> {
        let Some(attribute) = self.find(name) else {
            return Ok(None);
        };
        let found = kind(attribute);
        // An empty list and an attribute without a type look the same.
        let empty = found == AttributeType::Undefined && attribute.r#type == 0;
        if wanted.contains(&found) || empty {
            return Ok(Some(attribute));
        }
        Err(bad(format!(
            "attribute `{name}` is of type {found:?}, expected {:?}",
            wanted[0]
        )))
    }

    /// Whether an attribute is given.
    pub fn has_attr(&mut self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// Accepts attributes without regard to their values.
    pub fn ignore_attrs(&mut self, names: &[&str]) {
        for name in names {
            self.find(name);
        }
    }

    /// An integer, if it is given.
    ///
    /// # Errors
    /// When the attribute has another type, as for all functions here.
    pub fn int_opt(&mut self, name: &str) -> NodeResult<Option<i64>> {
        let attribute = self.of_kind(name, &[AttributeType::Int])?;
        Ok(attribute.map(|a| a.i.unwrap_or(0)))
    }

    /// An integer.
    ///
    /// # Errors
    /// When it has another type.
    pub fn int(&mut self, name: &str, default: i64) -> NodeResult<i64> {
        Ok(self.int_opt(name)?.unwrap_or(default))
    }

    /// A required integer.
    ///
    /// # Errors
    /// When it is missing or has another type.
    pub fn int_required(&mut self, name: &str) -> NodeResult<i64> {
        self.int_opt(name)?
            .ok_or_else(|| bad(format!("attribute `{name}` is missing")))
    }

    /// An integer that means yes or no.
    ///
    /// # Errors
    /// When it has another type.
    pub fn flag(&mut self, name: &str, default: bool) -> NodeResult<bool> {
        Ok(self.int_opt(name)?.map_or(default, |i| i != 0))
    }

    /// A number, if it is given.
    ///
    /// # Errors
    /// When it has another type.
    pub fn float_opt(&mut self, name: &str) -> NodeResult<Option<f64>> {
        let attribute = self.of_kind(name, &[AttributeType::Float])?;
        Ok(attribute.map(|a| f64::from(a.f.unwrap_or(0.0))))
    }

    /// A number; the default has the precision of an attribute.
    ///
    /// # Errors
    /// When it has another type.
    pub fn float(&mut self, name: &str, default: f32) -> NodeResult<f64> {
        Ok(self.float_opt(name)?.unwrap_or(f64::from(default)))
    }

    /// A list of integers, if it is given.
    ///
    /// # Errors
    /// When it has another type.
    pub fn ints(&mut self, name: &str) -> NodeResult<Option<Vec<i64>>> {
        let attribute = self.of_kind(name, &[AttributeType::Ints])?;
        Ok(attribute.map(|a| a.ints.clone()))
    }

    /// A list of numbers, if it is given.
    ///
    /// # Errors
    /// When it has another type.
    pub fn floats(&mut self, name: &str) -> NodeResult<Option<Vec<f64>>> {
        let attribute = self.of_kind(name, &[AttributeType::Floats])?;
        Ok(attribute.map(|a| a.floats.iter().map(|f| f64::from(*f)).collect()))
    }

    /// A string, if it is given.
    ///
    /// # Errors
    /// When it has another type or is not UTF-8.
    pub fn string_opt(&mut self, name: &str) -> NodeResult<Option<String>> {
        let attribute = self.of_kind(name, &[AttributeType::String])?;
        attribute
            .map(|a| text(a.s.as_deref().unwrap_or_default(), name))
            .transpose()
    }

    /// A string.
    ///
    /// # Errors
    /// When it has another type or is not UTF-8.
    pub fn string(&mut self, name: &str, default: &str) -> NodeResult<String> {
        Ok(self.string_opt(name)?.unwrap_or_else(|| default.into()))
    }

    /// A list of strings, if it is given.
    ///
    /// # Errors
    /// When it has another type or one is not UTF-8.
    pub fn strings(&mut self, name: &str) -> NodeResult<Option<Vec<String>>> {
        let Some(attribute) = self.of_kind(name, &[AttributeType::Strings])? else {
            return Ok(None);
        };
        let strings = attribute.strings.iter().map(|s| text(s, name));
        strings.collect::<NodeResult<_>>().map(Some)
    }

    /// A tensor, if it is given.
    ///
    /// # Errors
    /// When it has another type.
    pub fn tensor(&mut self, name: &str) -> NodeResult<Option<&'m TensorProto>> {
        let attribute = self.of_kind(name, &[AttributeType::Tensor])?;
        Ok(attribute.and_then(|a| a.t.as_deref()))
    }

    /// A required graph.
    ///
    /// # Errors
    /// When it is missing or has another type.
    pub fn graph(&mut self, name: &str) -> NodeResult<&'m GraphProto> {
        let attribute = self.of_kind(name, &[AttributeType::Graph])?;
        attribute
            .and_then(|a| a.g.as_deref())
            .ok_or_else(|| bad(format!("attribute `{name}` is missing")))
    }

    /// The first attribute that was never asked for.
    pub(super) fn unread_attribute(&mut self) -> Option<&'m AttributeProto> {
        let position = self.read.iter().position(|read| !read)?;
        self.read[position] = true;
        // A reference to an attribute that the call does not give is as if it were not there.
        self.imp
            .resolve_attribute(&self.node.attribute[position])
            .and(Some(&self.node.attribute[position]))
    }
}
