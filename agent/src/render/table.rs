//! Tables: a head, rows, no lines; cut to the terminal's width, whole in a pipe.

use comfy_table::{Cell, CellAlignment, ContentArrangement, presets};
use owo_colors::OwoColorize;
use shared::log::Phase;

use super::Out;

/// A table on its way.
pub struct Table {
    table: comfy_table::Table,
    out: Out,
}

impl Table {
    /// A table with these column heads; those that begin with `>` are flush right.
    pub fn new(out: Out, heads: &[&str]) -> Self {
        let mut table = comfy_table::Table::new();
        table.load_style(presets::NOTHING);
        table.set_content_arrangement(ContentArrangement::Dynamic);
        if !out.is_terminal() {
            table.set_content_arrangement(ContentArrangement::Disabled);
        }
        table.set_header(heads.iter().map(|head| Cell::new(head.trim_start_matches('>'))));
        for (i, head) in heads.iter().enumerate() {
            let Some(column) = table.column_mut(i) else { continue };
            column.set_padding((0, 2));
            if head.starts_with('>') {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        Self { table, out }
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.table.add_row(cells);
    }

    /// Prints it; states in their colour.
    pub fn print(&self) {
        for line in self.table.lines() {
            self.out.line(line.trim_end());
        }
    }
}

/// A state, in its colour where colours may be used.
pub fn phase(out: Out, phase: Phase) -> String {
    let text = phase.as_str();
    if !out.color() {
        return text.into();
    }
    match phase {
        Phase::Succeeded => text.green().to_string(),
        Phase::Failed | Phase::Rejected => text.red().to_string(),
        Phase::Running | Phase::Starting => text.cyan().to_string(),
        Phase::Stopping | Phase::Frozen | Phase::Cancelled => text.yellow().to_string(),
        Phase::Parked | Phase::Queued | Phase::Reserved => text.dimmed().to_string(),
    }
}
