// One SVG a benchmark, by gnuplot: what each run reached beside the program alone, with the spread.

import {writeFileSync} from "node:fs";
import {join} from "node:path";
import {output} from "./demo/children.mjs";
import {ratio} from "./summary.mjs";

const LIMIT = 30000;
const COLOURS = {alone: "#888888", mem: "#2b6cb0", nbd: "#2f855a", zram: "#c05621"};

const quote = (text) => `"${text.replace(/[\\"]/g, "\\$&")}"`;
const kindOf = (arm) => arm.split("-")[0];

// rows: [{arm, ratio: {median, min, max}}]. Returns an error text or null.
export async function plot(folder, name, title, rows) {
	const shown = rows.filter((r) => r.ratio);
	if (shown.length < 2)
		return null;
	const data = shown.map((r, i) => `${i} ${r.ratio.median} ${r.ratio.min} ${r.ratio.max} ${quote(r.arm)} ${quote(ratio(r.ratio.median))}`).join("\n");
	const top = Math.max(1.05, ...shown.map((r) => Math.min(r.ratio.max, 2))) * 1.12;
	const series = Object.keys(COLOURS).filter((kind) => shown.some((r) => kindOf(r.arm) === kind));
	const bars = series.map((kind) => {
		const column = `(strcol(5)[1:${kind.length}] eq ${quote(kind)} ? $2 : NaN)`;
		return `$rows using 1:${column} with boxes fc rgb ${quote(COLOURS[kind])} notitle`;
	});
	const script = `set terminal svg size ${Math.max(560, 150 + 62 * shown.length)},360 font "sans,12" background "#ffffff"
set output ${quote(join(folder, `${name}.svg`))}
set title ${quote(title)} noenhanced
set ylabel "times the program alone" noenhanced
set style fill solid 0.85 noborder
set boxwidth 0.7
set grid ytics lc rgb "#dddddd"
set border 3
set xtics nomirror rotate by -35 noenhanced scale 0 (${shown.map((r, i) => `${quote(r.arm)} ${i}`).join(", ")})
set ytics nomirror
set rmargin 4
set bmargin 6
set xrange [-0.6:${shown.length - 0.4}]
set yrange [0:${top}]
$rows << EOD
${data}
EOD
plot ${bars.join(", ")}, \\
 $rows using 1:3:(0):($4 > ${top} ? ${top} - $3 : $4 - $3) with vectors nohead lw 2 lc rgb "#222222" notitle, \\
 $rows using 1:($4 > ${top} ? ${top} : $4):(strcol(6)) with labels offset 0,0.7 font ",10" notitle, \\
 1 with lines dt 2 lc rgb "#777777" notitle
`;
	const file = join(folder, `${name}.gp`);
	writeFileSync(file, script);
	const {code} = await output("gnuplot", [file], LIMIT);
	return code === 0 ? null : `${name}.svg: gnuplot failed (${code})`;
}
