package main

import (
	"fmt"
	"io"
)

// print writes the tables in Markdown.
func (r *scaleResults) print(w io.Writer) {
	small, large := thousands(r.Rows[0]), thousands(r.Rows[1])
	fmt.Fprintf(w, "\n%s. %s, %d virtual CPUs, %s; %s with %s of shared_buffers. Medians of %d rounds; in brackets the one-sided 95 %% bound.\n\n",
		r.Time.Format("2006-01-02"), r.Machine.CPU, r.Machine.CPUs, r.Machine.System, r.Postgres, scaleBuffers, len(r.Operations[0].Costs[0]))
	fmt.Fprintf(w, "| operation | CPU µs, %s rows | %s | × | buffers, %[1]s rows | %[2]s | × | WAL bytes, %[1]s rows | %[2]s |\n", small, large)
	fmt.Fprintln(w, "|---|---|---|---|---|---|---|---|---|")
	for _, o := range r.Operations {
		fmt.Fprintf(w, "| %s | %s | %s | %s | %.1f | %.1f | %s | %.0f | %.0f |\n", o.Name, o.cpu(0), o.cpu(1), o.times(cpuOf, 20),
			median(o.values(0, buffersOf)), median(o.values(1, buffersOf)), o.times(buffersOf, 0.05), median(o.values(0, walOf)), median(o.values(1, walOf)))
	}
	fmt.Fprintf(w, "\nCPU is gateway + Postgres, or Postgres alone where the step is asked of it directly. The kernel counts it in hundredths of a second: no ratio below 20 µs.\n\n")
	fmt.Fprintf(w, "| table, with its indexes | %s rows, MB | %s rows, MB | bytes/row |\n|---|---|---|---|\n", small, large)
	for _, t := range r.Tables {
		fmt.Fprintf(w, "| `%s` | %.0f | %.0f | %.0f |\n", t.Name, float64(t.Bytes[0])/1e6, float64(t.Bytes[1])/1e6, float64(t.Bytes[1])/float64(r.Rows[1]))
	}
	fmt.Fprintf(w, "\nA poll of a view that hears of nothing takes Postgres %.0f µs.\n", r.PollMicros)
	r.printCapacity(w)
	r.printExample(w, workedExample)
}

// times compares the sizes, unless there is less than least.
func (o *scaleOperation) times(of func(scaleCost) float64, least float64) string {
	if median(o.values(0, of)) < least {
		return "-"
	}
	ratio := o.ratio(of)
	return fmt.Sprintf("%.2f (≤ %.2f)", ratio.median, ratio.high)
}

func (o *scaleOperation) cpu(size int) string {
	gateway, server := median(o.values(size, gatewayOf)), median(o.values(size, serverOf))
	if gateway == 0 {
		return fmt.Sprintf("%.0f", server)
	}
	return fmt.Sprintf("%.0f + %.0f", gateway, server)
}

func thousands(n int) string {
	switch {
	case n >= 1_000_000 && n%1_000_000 == 0:
		return fmt.Sprintf("%d M", n/1_000_000)
	case n%1000 == 0:
		return fmt.Sprintf("%d k", n/1000)
	}
	return fmt.Sprint(n)
}
