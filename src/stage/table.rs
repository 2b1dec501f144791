//! placeholder until the report branch lands
