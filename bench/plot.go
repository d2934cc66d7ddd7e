package main

import (
	"bytes"
	"html"
	"slices"
	"strconv"
)

// The plots are plain SVG: bars and dots along one axis, readable on a light
// and on a dark page.
const (
	plotWidth  = 760
	labelWidth = 190
	rowHeight  = 26
	headHeight = 34
	plotStyle  = `text{font:13px system-ui,sans-serif;fill:#777}.t{font-weight:600}rect{fill:#4c8dd6}.b{stroke:#777;stroke-width:2}circle{fill:#4c8dd6;fill-opacity:.45}.g{stroke:#7774}.m{stroke:#d6604c;stroke-width:3}`
)

type bar struct {
	name  string
	value estimate
}

// barChart draws medians with their bounds.
func barChart(title string, bars []bar) []byte {
	p := newPlot(title, len(bars))
	highest := 0.0
	for _, b := range bars {
		highest = max(highest, b.value.high)
	}
	p.scale(0, highest)
	for i, b := range bars {
		y := p.row(i, b.name)
		p.add(`<rect x="`, num(p.x(0)), `" y="`, num(y-8), `" width="`, num(p.x(b.value.median)-p.x(0)), `" height="16"/>`)
		p.add(`<line class="b" x1="`, num(p.x(b.value.low)), `" x2="`, num(p.x(b.value.high)), `" y1="`, num(y), `" y2="`, num(y), `"/>`)
		p.text(p.x(b.value.high)+8, y, strconv.FormatFloat(b.value.median, 'f', 0, 64))
	}
	return p.end()
}

type dotRow struct {
	name   string
	values []float64
	value  estimate
}

// dotChart draws every value, and the median over them.
func dotChart(title string, rows []dotRow) []byte {
	p := newPlot(title, len(rows))
	lowest, highest := 1.0, 1.0
	for _, r := range rows {
		lowest, highest = min(lowest, slices.Min(r.values)), max(highest, slices.Max(r.values))
	}
	p.scale(lowest, highest)
	p.add(`<line class="g" x1="`, num(p.x(1)), `" x2="`, num(p.x(1)), `" y1="`, num(headHeight), `" y2="`, num(p.height), `"/>`)
	for i, r := range rows {
		y := p.row(i, r.name)
		for _, v := range r.values {
			p.add(`<circle r="4" cx="`, num(p.x(v)), `" cy="`, num(y), `"/>`)
		}
		p.add(`<line class="m" x1="`, num(p.x(r.value.median)), `" x2="`, num(p.x(r.value.median)), `" y1="`, num(y-9), `" y2="`, num(y+9), `"/>`)
		p.text(plotWidth-44, y, strconv.FormatFloat(r.value.median, 'f', 2, 64))
	}
	return p.end()
}

type plot struct {
	bytes.Buffer
	height    float64
	low, high float64
}

func newPlot(title string, rows int) *plot {
	p := &plot{height: headHeight + float64(rows)*rowHeight + 8}
	p.add(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 `, num(plotWidth), ` `, num(p.height), `" role="img">`,
		`<title>`, html.EscapeString(title), `</title><style>`, plotStyle, `</style>`)
	p.add(`<text class="t" x="8" y="20">`, html.EscapeString(title), `</text>`)
	return p
}

func (p *plot) scale(low, high float64) { p.low, p.high = low, high }

func (p *plot) x(value float64) float64 {
	return labelWidth + (value-p.low)/(p.high-p.low)*(plotWidth-labelWidth-60)
}

func (p *plot) row(i int, name string) (y float64) {
	y = headHeight + (float64(i)+0.5)*rowHeight
	p.text(8, y, name)
	return y
}

func (p *plot) text(x, y float64, text string) {
	p.add(`<text x="`, num(x), `" y="`, num(y+4), `">`, html.EscapeString(text), `</text>`)
}

func (p *plot) add(parts ...string) {
	for _, part := range parts {
		p.WriteString(part)
	}
	p.WriteByte('\n')
}

func (p *plot) end() []byte {
	p.add("</svg>")
	return p.Bytes()
}

func num(v float64) string { return strconv.FormatFloat(v, 'f', 1, 64) }
