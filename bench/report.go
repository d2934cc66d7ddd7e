package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"text/tabwriter"
	"time"
)

// report is the raw figures of one run.
type report struct {
	Time        time.Time         `json:"time"`
	GoVersion   string            `json:"go_version"`
	CPUs        int               `json:"cpus"`
	Connections int               `json:"connections"`
	Sessions    int               `json:"sessions"`
	Scenarios   []*scenarioReport `json:"scenarios"`
}

type scenarioReport struct {
	Name        string        `json:"name"`
	Description string        `json:"description"`
	IdleMemory  int64         `json:"idle_memory_bytes"`
	Rounds      []measurement `json:"rounds"`
}

func newReport(o options, gateways []*gateway) *report {
	r := &report{Time: time.Now().UTC(), GoVersion: runtime.Version(), CPUs: runtime.NumCPU(), Connections: o.conns, Sessions: o.sessions}
	for _, g := range gateways {
		r.Scenarios = append(r.Scenarios, &scenarioReport{Name: g.scenario.name, Description: g.scenario.description})
	}
	return r
}

// print writes the table. A ratio is the median of the rounds' own ratios, with
// the smallest and the largest of them.
func (r *report) print(w io.Writer) {
	fmt.Fprintf(w, "\n%d connections, %d sessions, %d CPUs, %s; medians of %d rounds\n\n",
		r.Connections, r.Sessions, r.CPUs, r.GoVersion, len(r.Scenarios[0].Rounds))
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "scenario\tCPU us/request\tx plain\t(min - max)\trequests/s\tp50 ms\tp99 ms\tidle MiB\tloaded MiB")
	for _, s := range r.Scenarios {
		ratios := s.ratios(r.Scenarios[0])
		fmt.Fprintf(t, "%s\t%.0f\t%.2f\t(%.2f - %.2f)\t%.0f\t%.2f\t%.2f\t%.0f\t%.0f\n", s.Name,
			s.median(func(m measurement) float64 { return m.CPUMicros }),
			median(ratios), slices.Min(ratios), slices.Max(ratios),
			s.median(func(m measurement) float64 { return m.PerSecond }),
			s.median(func(m measurement) float64 { return m.P50Micros })/1000,
			s.median(func(m measurement) float64 { return m.P99Micros })/1000,
			float64(s.IdleMemory)/(1<<20),
			s.max(func(m measurement) float64 { return float64(m.MemoryByte) })/(1<<20))
	}
	_ = t.Flush()
	fmt.Fprintln(w)
	for _, s := range r.Scenarios {
		fmt.Fprintf(w, "%s: %s\n", s.Name, s.Description)
	}
}

// ratios compares CPU per request round by round.
func (s *scenarioReport) ratios(base *scenarioReport) []float64 {
	ratios := make([]float64, len(s.Rounds))
	for i := range s.Rounds {
		ratios[i] = s.Rounds[i].CPUMicros / base.Rounds[i].CPUMicros
	}
	return ratios
}

func (s *scenarioReport) median(value func(measurement) float64) float64 {
	values := make([]float64, len(s.Rounds))
	for i, m := range s.Rounds {
		values[i] = value(m)
	}
	return median(values)
}

func (s *scenarioReport) max(value func(measurement) float64) float64 {
	highest := math.Inf(-1)
	for _, m := range s.Rounds {
		highest = max(highest, value(m))
	}
	return highest
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

func (r *report) write(name string) error {
	if name == "" {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	out, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(name, append(out, '\n'), 0o644)
}
