//! Results, tables and README blocks.
