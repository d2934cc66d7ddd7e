package main

import (
	"fmt"
	"io"
)

// demand is what docs/scaling.md calls by one letter each.
type demand struct {
	users, apps, active, requests, hours, used, connections, revocations float64
	peak, tokenTTL, nodes, betweenCheckpoints                            float64
}

// workedExample of docs/scaling.md.
var workedExample = demand{users: 1e6, apps: 5, active: 1e5, requests: 300, hours: 2, used: 3, connections: 2e4, revocations: 5e3,
	peak: 4, tokenTTL: 900, nodes: 4, betweenCheckpoints: 900}

const secondsADay = 86400

// load of the peak, by second.
func (d demand) load() (requests, inUse, refreshes, exchanges, firstSights, revocations float64) {
	requests = d.peak * d.active * d.requests / secondsADay
	inUse = d.peak * d.active * d.used * d.hours / 24
	refreshes = inUse / d.tokenTTL
	exchanges = d.peak * d.connections / secondsADay
	firstSights = (refreshes + exchanges) * min(d.nodes, requests/inUse*d.tokenTTL)
	return requests, inUse, refreshes, exchanges, firstSights, d.peak * d.revocations / secondsADay
}

// printCapacity divides a core by what things take of it.
func (r *scaleResults) printCapacity(w io.Writer) {
	aSecond := func(micros float64) string {
		if micros < 5 { // what the gateways do meanwhile, by themselves
			return "-"
		}
		return fmt.Sprintf("%.0f", 1e6/micros)
	}
	fmt.Fprintf(w, "\n**What a core carries**, calculated from these costs in %s rows.\n\n", thousands(r.Rows[1]))
	fmt.Fprintln(w, "| a second | by a core of the nodes | by a core of Postgres |\n|---|---|---|")
	for _, name := range []string{opLive, opStrict, opFirstSight, opRefresh, opExchange, opLogin, opRevocation} {
		o := r.operation(name)
		fmt.Fprintf(w, "| %s | %s | %s |\n", name, aSecond(median(o.values(1, gatewayOf))), aSecond(median(o.values(1, serverOf))))
	}
}

func (r *scaleResults) operation(name string) *scaleOperation {
	for _, o := range r.Operations {
		if o.Name == name {
			return o
		}
	}
	panic("no operation " + name)
}

// printExample puts the measured costs into the formulas of docs/scaling.md.
func (r *scaleResults) printExample(w io.Writer, d demand) {
	cost := func(name string, of func(scaleCost) float64) float64 { return median(r.operation(name).values(1, of)) }
	requests, inUse, refreshes, exchanges, firstSights, revocations := d.load()
	sum := func(of func(scaleCost) float64) float64 {
		return requests*cost(opLive, of) + firstSights*(cost(opFirstSight, of)-cost(opLive, of)) + refreshes*cost(opRefresh, of) +
			exchanges*(cost(opExchange, of)+cost(opLogin, of)) + revocations*cost(opRevocation, of) + 2*inUse/60*cost(opLastActive, of)
	}
	const passwordMicros = 20_000 // argon2id, for each sign-in; not among the operations
	nodes := (sum(gatewayOf) + exchanges*passwordMicros) / 1e6
	server := (sum(serverOf) + d.nodes*(4+min(revocations, 500))*r.PollMicros) / 1e6
	pages := 8192 * inUse / d.betweenCheckpoints
	fmt.Fprintf(w, "\n**The worked example at its peak**, calculated with these costs in ten million rows: %.0f requests, %.0f refreshes, %.1f exchanges, %.0f first sights and %.1f revocations a second, %.0f sessions in use.\n\n",
		requests, refreshes, exchanges, firstSights, revocations, inUse)
	fmt.Fprintln(w, "| | |\n|---|---|")
	fmt.Fprintf(w, "| CPU of all nodes | %.2f cores, Caddy's proxying included |\n", nodes)
	fmt.Fprintf(w, "| CPU of Postgres | %.2f cores |\n", server)
	fmt.Fprintf(w, "| WAL | %.1f MB/s, of which %.1f MB/s whole pages after checkpoints every %.0f minutes |\n", (sum(walOf)+pages)/1e6, pages/1e6, d.betweenCheckpoints/60)
	fmt.Fprintf(w, "| sessions on disk | %.1f GB |\n", d.users*d.apps*float64(r.Tables[0].Bytes[1])/float64(r.Rows[1])/1e9)
}
