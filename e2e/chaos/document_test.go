//go:build linux

package chaos

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
)

var document = flag.String("document", "", "a Markdown file in which the table of figures is replaced by that of -results; no test runs")

// figuresPlace is where the table stands in the document.
var figuresPlace = regexp.MustCompile(`(?s)(<!-- figures[^>]*-->\n).*(<!-- end -->)`)

// writeDocument puts the figures that were measured into the document.
func writeDocument() error {
	results, err := os.ReadFile(*results)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(*document)
	if err != nil {
		return err
	}
	figures := make(map[string][]figure)
	last := figure{Date: "no figures"}
	for line := range bytes.Lines(results) {
		if err := json.Unmarshal(line, &last); err != nil {
			return fmt.Errorf("%s: %w", line, err)
		}
		figures[last.Row] = append(figures[last.Row], last)
	}
	var table strings.Builder
	for _, row := range slices.Sorted(maps.Keys(figures)) {
		for i, f := range figures[row] {
			if i > 0 {
				row = ""
			}
			if !f.Kept {
				f.Limit += " **missed**"
			}
			fmt.Fprintf(&table, "| %s | %s | %s | %s |\n", row, f.What, f.Value, f.Limit)
		}
	}
	head := fmt.Sprintf("\n%s; %s, %d virtual CPUs, %s/%s, %s.\n\n| row | what | measured | limit |\n|---|---|---|---|\n",
		last.Date[:len("2006-01-02")], processor(), runtime.NumCPU(), runtime.GOOS, runtime.GOARCH, runtime.Version())
	place := figuresPlace.FindSubmatchIndex(text)
	if place == nil {
		return fmt.Errorf("%s has no place for the figures", *document)
	}
	return os.WriteFile(*document, bytes.Join([][]byte{text[:place[3]], []byte(head + table.String() + "\n"), text[place[4]:]}, nil), 0o644)
}

// processor is the name that the machine's processor gives itself.
func processor() string {
	text, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(text)) {
		if name, ok := strings.CutPrefix(line, "model name"); ok {
			return strings.Trim(name, "\t: \n")
		}
	}
	return "an unnamed processor"
}
