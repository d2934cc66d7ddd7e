//go:build linux

package chaos

import (
	"net/http"
	"os"
	"testing"
	"time"

	"github.com/caddy-scope/caddy-scope/e2e/cluster"
	"github.com/caddy-scope/caddy-scope/e2e/ledger"
	"github.com/caddy-scope/caddy-scope/postgres/postgrestest"
)

// partition is a way in which a node loses Postgres, and gets it back.
type partition struct {
	name       string
	begin, end func(t *testing.T, n *cluster.Node)
}

func heal(t *testing.T, n *cluster.Node) { n.Wire.Heal(t) }

// byWire are the partitions that need no root.
var byWire = []partition{
	{"nothing comes through", func(_ *testing.T, n *cluster.Node) { n.Wire.Freeze() }, heal},
	{"nothing gets there", func(_ *testing.T, n *cluster.Node) { n.Wire.Freeze(postgrestest.ToServer) }, heal},
	{"nothing comes back", func(_ *testing.T, n *cluster.Node) { n.Wire.Freeze(postgrestest.ToClient) }, heal},
	{"refused", func(_ *testing.T, n *cluster.Node) { n.Wire.Refuse(); n.Wire.Reset() }, heal},
	{"half-open sockets", func(_ *testing.T, n *cluster.Node) { n.Wire.HalfOpen() }, heal},
	{"bytes are lost", func(_ *testing.T, n *cluster.Node) { n.Wire.Lose() }, heal},
}

// byFirewall are those of the kernel, in network namespaces.
func byFirewall() (all []partition) {
	reunite := func(t *testing.T, n *cluster.Node) { n.Reunite(t) }
	for _, rule := range [][2]string{{"OUTPUT", "DROP"}, {"INPUT", "DROP"}, {"OUTPUT", "REJECT"}} {
		all = append(all, partition{"iptables " + rule[0] + " " + rule[1], func(t *testing.T, n *cluster.Node) { n.Partition(t, rule[0], rule[1]) }, reunite})
	}
	return all
}

// TestPartitionedNodeAdmitsNothingItCannotTell: a node is cut off from Postgres
// in every way there is, while sessions are revoked at the others. It answers
// 503 in time, never a 2xx for what was revoked and never a 401 in doubt; the
// other nodes notice nothing; and it comes back by itself.
//
// The long form also partitions by iptables, in network namespaces.
func TestPartitionedNodeAdmitsNothingItCannotTell(t *testing.T) {
	t.Parallel()
	ways, namespaces := pick([]partition{byWire[0], byWire[3], byWire[4]}, byWire), false
	if *long && os.Geteuid() == 0 {
		ways, namespaces = append(ways, byFirewall()...), true
	}
	r := newRun(t, "R-06", cluster.Config{Nodes: pick(2, 3), Namespaces: namespaces}, moderate())
	lost := r.c.Nodes[0]
	var apart []window
	var unready, normal time.Duration
	for _, way := range ways {
		r.sleep(pick(500*time.Millisecond, 3*time.Second))
		way.begin(t, lost)
		from := r.load.Now() // until here it need not have been cut off
		unready = max(unready, r.until(way.name+": the node says that it is not ready", 15*time.Second, func() bool {
			return lost.Get(t.Context(), "/oauth/healthz/ready", "").Status == http.StatusServiceUnavailable
		}))
		r.sleep(pick(1500*time.Millisecond, 10*time.Second))
		apart = append(apart, window{from + bound, r.load.Now()})
		way.end(t, lost)
		healed := time.Now()
		r.until(way.name+": the node is back", 30*time.Second, func() bool { return lost.Status(t).View.Fresh && isReady(lost) })
		normal = max(normal, time.Since(healed))
	}
	r.sleep(time.Second)
	r.settle()

	entries := r.load.Entries()
	here := sentIn(entries, apart).Of(ledger.Gate).Where(func(e ledger.Entry) bool { return e.Node == lost.Name && e.Wrong == "" })
	elsewhere := entries.Where(func(e ledger.Entry) bool {
		return e.Node != lost.Name && e.Node != "psql" && e.Status/100 != 2 && e.Status/100 != 4
	})
	noted(t, "R-06", "ways in which the node was cut off", len(ways))
	noted(t, "R-06", "answers of the gate there meanwhile", answeredIn(here, apart).Statuses())
	exactly(t, "R-06", "2xx there meanwhile, after the bound", len(answeredIn(here, apart).Where(ledger.Entry.OK)), 0)
	atMost(t, "R-06", "gate there meanwhile, slowest answer", here.Quantile(1), answerLimit())
	atMost(t, "R-06", "until the node says that it is not ready, slowest", unready, 5*time.Second)
	atMost(t, "R-06", "from the healing until all is normal, slowest", normal, 10*time.Second)
	exactly(t, "R-06", "failures at other nodes", len(elsewhere), 0)
	for i, e := range elsewhere {
		if i < 10 {
			t.Log(e)
		}
	}
}
