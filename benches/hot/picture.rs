//! Draws the load of shards as bars.

use crate::balance::Row;
use crate::stand::Mode;
use std::fmt::Write as _;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 110.0;
const LEFT: f64 = 190.0;

/// A row of bars for each kind of proxy, all to the same scale: the mean without any of it is the dashed line.
pub(crate) fn draw(rows: &[Row]) -> String {
    let share = |row: &Row| -> Vec<f64> {
        let plain = rows.iter().find(|row| row.mode == Mode::Reads("off")).unwrap_or(row);
        let of = plain.did.iter().map(|did| did.gets).sum::<u64>().max(1) as f64 / row.did.len() as f64;
        row.did.iter().map(|did| did.gets as f64 / of).collect()
    };
    let top = rows.iter().flat_map(share).fold(1.0, f64::max);
    let height = HEIGHT * rows.len() as f64 + 40.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n\
         <text x=\"10\" y=\"18\" font-size=\"14\">GETs at each shard, Zipf 1.2, as the shards count them; dashed: the mean of plain \
         sharding</text>\n"
    );
    for (number, row) in rows.iter().enumerate() {
        let base = 30.0 + HEIGHT * (number + 1) as f64 - 15.0;
        let scale = (HEIGHT - 25.0) / top;
        let shares = share(row);
        let most = shares.iter().copied().fold(0.0, f64::max);
        let wide = (WIDTH - LEFT - 20.0) / shares.len() as f64;
        let _ = writeln!(svg, "<text x=\"10\" y=\"{:.1}\">{}</text>", base - 30.0, row.mode.name().replace('`', ""));
        let _ = writeln!(svg, "<text x=\"10\" y=\"{:.1}\" fill=\"#666\">busiest: {most:.2}</text>", base - 12.0);
        for (shard, share) in shares.iter().enumerate() {
            let (x, tall) = (LEFT + wide * shard as f64, share * scale);
            let colour = if *share > 1.4 { "#c0392b" } else { "#2e7d5b" };
            let _ = writeln!(
                svg,
                "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{tall:.1}\" fill=\"{colour}\"/>",
                base - tall,
                wide - 3.0
            );
        }
        let (mean, right) = (base - scale, WIDTH - 20.0);
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" y1=\"{mean:.1}\" x2=\"{right}\" y2=\"{mean:.1}\" stroke=\"#333\" stroke-dasharray=\"4 3\"/>"
        );
    }
    svg + "</svg>\n"
}
