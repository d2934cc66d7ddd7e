package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// The tables stand between these lines of a document.
const (
	tablesBegin = "<!-- figures: drawn from the results file by `make performance` -->\n"
	tablesEnd   = "<!-- end of figures -->\n"
)

// draw writes the tables of a results file into performance.md in dir, and the
// plots beside it; and those of scale.json in dir into scaling.md.
func draw(resultsFile, dir string) error {
	r, err := readResults[results](resultsFile)
	if err != nil {
		return err
	}
	drawn, err := r.drawing(dir)
	if err != nil {
		return err
	}
	scale, err := readResults[scaleResults](filepath.Join(dir, "scale.json"))
	if err != nil {
		return err
	}
	if drawn["scaling.md"], err = withFigures(dir, "scaling.md", scale.print); err != nil {
		return err
	}
	for name, content := range drawn {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// drawing returns the files that follow from the results, by name.
func (r *results) drawing(dir string) (map[string][]byte, error) {
	document, err := withFigures(dir, "performance.md", r.print)
	return map[string][]byte{
		"performance.md":         document,
		"performance-cpu.svg":    barChart("CPU of the proxy per request, µs", r.cpuBars()),
		"performance-ratios.svg": dotChart("CPU per request × plain reverse_proxy, every round", r.ratioRows()),
	}, err
}

// withFigures returns the document with figures in their place.
func withFigures(dir, name string, figures func(io.Writer)) ([]byte, error) {
	document, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		return nil, err
	}
	before, rest, begun := bytes.Cut(document, []byte(tablesBegin))
	_, after, ended := bytes.Cut(rest, []byte(tablesEnd))
	if !begun || !ended {
		return nil, errors.New(name + " has no place for figures")
	}
	var tables bytes.Buffer
	figures(&tables)
	return bytes.Join([][]byte{before, []byte(tablesBegin), tables.Bytes(), []byte(tablesEnd), after}, nil), nil
}

// print writes the tables in Markdown.
func (r *results) print(w io.Writer) {
	rounds := 0
	for _, s := range r.ManyTokens {
		rounds = len(s.Rounds)
	}
	if rounds == 0 {
		r.printTokenEndpoint(w)
		return
	}
	fmt.Fprintf(w, "\n%s. %s, %d virtual CPUs, %s; Go %s, Caddy %s, %s, %s. %d connections; medians of %d rounds, one-sided 95 %% bound in brackets.\n",
		r.Time.Format("2006-01-02"), r.Machine.CPU, r.Machine.CPUs, r.Machine.System, r.Versions["go"], r.Versions["caddy"],
		r.Versions["postgresql"], r.Versions["nginx"], r.Connections, rounds)
	r.printClosed(w, fmt.Sprintf("%d tokens", r.Tokens), r.ManyTokens)
	r.printClosed(w, "One token", r.OneToken)
	r.printOpen(w)
	r.printTokenEndpoint(w)
	fmt.Fprintln(w)
}

func (r *results) printClosed(w io.Writer, title string, all []*series) {
	if len(all) == 0 {
		return
	}
	fmt.Fprintf(w, "\n**%s, closed loop**\n\n", title)
	fmt.Fprintln(w, "| scenario | CPU µs/request | × plain | requests/s | × plain | p50 ms | p99 ms | MiB idle | MiB loaded |")
	fmt.Fprintln(w, "|---|---|---|---|---|---|---|---|---|")
	for _, s := range all {
		cpu, rate := s.ratio(all[0], cpuMicros), s.ratio(all[0], perSecond)
		fmt.Fprintf(w, "| %s | %.0f | %.2f (≤ %.2f) | %.0f | %.2f (≥ %.2f) | %.1f | %.1f | %.0f | %.0f |\n", s.Scenario,
			s.median(cpuMicros), cpu.median, cpu.high, s.median(perSecond), rate.median, rate.low,
			s.median(p50Micros)/1000, s.median(p99Micros)/1000, float64(r.IdleMemory[s.Scenario])/(1<<20), s.median(memoryMiB))
	}
}

func (r *results) printOpen(w io.Writer) {
	if len(r.OpenLoop) == 0 {
		return
	}
	fmt.Fprintf(w, "\n**Open loop at %.0f requests/s, %.0f %% of the capacity of plain; latency from when a request was due**\n\n",
		openShare*r.ManyTokens[0].median(perSecond), 100*openShare)
	fmt.Fprintln(w, "| scenario | CPU µs/request | × plain | p50 ms | p99 ms | p99 above plain, ms |")
	fmt.Fprintln(w, "|---|---|---|---|---|---|")
	for _, s := range r.OpenLoop {
		cpu := s.ratio(r.OpenLoop[0], cpuMicros)
		above := s.values(p99Micros)
		for i, b := range r.OpenLoop[0].values(p99Micros) {
			above[i] = (above[i] - b) / 1000
		}
		fmt.Fprintf(w, "| %s | %.0f | %.2f (≤ %.2f) | %.2f | %.2f | %.2f |\n", s.Scenario, s.median(cpuMicros), cpu.median, cpu.high,
			s.median(p50Micros)/1000, s.median(p99Micros)/1000, median(above))
	}
}

func (r *results) printTokenEndpoint(w io.Writer) {
	t := r.TokenEndpoint
	if t == nil {
		return
	}
	fmt.Fprintf(w, "\n**Token endpoint, %d connections, beside pgbench with the same statements; both with %d connections to Postgres over its socket.** %s, %s, %d virtual CPUs\n\n",
		t.Connections, databaseConns, t.Time.Format("2006-01-02"), t.Machine.CPU, t.Machine.CPUs)
	fmt.Fprintln(w, "| operation | by | operations/s | gateway ÷ pgbench | CPU µs: gateway | Postgres | client |")
	fmt.Fprintln(w, "|---|---|---|---|---|---|---|")
	for _, f := range t.Operations {
		ratio := f.ratio()
		fmt.Fprintf(w, "| %s | gateway | %.0f | %.2f (≥ %.2f) | %.0f | %.0f | %.0f |\n", f.Operation, median(loads(f.Gateway, operationsPerSecond)), ratio.median, ratio.low,
			median(loads(f.Gateway, gatewayMicros)), median(loads(f.Gateway, postgresMicros)), median(loads(f.Gateway, clientMicros)))
		fmt.Fprintf(w, "| | pgbench | %.0f | | | %.0f | %.0f |\n", median(loads(f.Pgbench, operationsPerSecond)),
			median(loads(f.Pgbench, postgresMicros)), median(loads(f.Pgbench, clientMicros)))
	}
}

func (r *results) cpuBars() []bar {
	bars := make([]bar, len(r.ManyTokens))
	for i, s := range r.ManyTokens {
		bars[i] = bar{s.Scenario, estimateOf(s.values(cpuMicros))}
	}
	return bars
}

// ratioRows are the Caddy scenarios that are meant to be near to plain.
func (r *results) ratioRows() (rows []dotRow) {
	for _, part := range []struct {
		suffix string
		all    []*series
	}{{fmt.Sprintf(", %d tokens", r.Tokens), r.ManyTokens}, {", 1 token", r.OneToken}} {
		for i, s := range part.all {
			if e := s.ratio(part.all[0], cpuMicros); i > 0 && e.median < 1.5 && !strings.HasPrefix(s.Scenario, "nginx") {
				ratios := s.values(cpuMicros)
				for j, b := range part.all[0].values(cpuMicros) {
					ratios[j] /= b
				}
				rows = append(rows, dotRow{s.Scenario + part.suffix, ratios, e})
			}
		}
	}
	return rows
}
