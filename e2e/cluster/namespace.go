//go:build linux

package cluster

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// namespace is a network namespace with one link to the machine.
type namespace struct {
	name            string
	outside, inside string // addresses of the two ends of the link
}

func newNamespace(t testing.TB, i int) *namespace {
	t.Helper()
	pid := os.Getpid()
	ns := &namespace{name: fmt.Sprintf("scope%d-%d", pid, i)}
	// Thirty-two blocks of four addresses in a /25 of the process's own.
	third, fourth := pid>>1&0xff, pid&1<<7+i%32*4
	ns.outside, ns.inside = fmt.Sprintf("10.77.%d.%d", third, fourth+1), fmt.Sprintf("10.77.%d.%d", third, fourth+2)
	out, in := fmt.Sprintf("so%d-%d", pid%1_000_000, i), fmt.Sprintf("si%d-%d", pid%1_000_000, i)
	ip(t, "netns", "add", ns.name)
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "delete", ns.name).Run() })
	ip(t, "link", "add", out, "type", "veth", "peer", "name", in)
	ip(t, "link", "set", in, "netns", ns.name)
	ip(t, "address", "add", ns.outside+"/30", "dev", out)
	ip(t, "link", "set", out, "up")
	ip(t, "-n", ns.name, "address", "add", ns.inside+"/30", "dev", in)
	ip(t, "-n", ns.name, "link", "set", in, "up")
	ip(t, "-n", ns.name, "link", "set", "lo", "up")
	return ns
}

func ip(t testing.TB, args ...string) {
	t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// Partition adds a rule of iptables in the node's namespace for its packets to
// and from Postgres: chain is OUTPUT or INPUT, target DROP or REJECT. The node
// must have been made with Config.Namespaces.
func (n *Node) Partition(t testing.TB, chain, target string) {
	t.Helper()
	_, port, _ := strings.Cut(n.Wire.Address(), ":")
	way := "--dport"
	if chain == "INPUT" {
		way = "--sport"
	}
	n.iptables(t, "-A", chain, "-p", "tcp", way, port, "-j", target)
}

// Reunite removes every rule of Partition.
func (n *Node) Reunite(t testing.TB) {
	t.Helper()
	n.iptables(t, "-F")
}

func (n *Node) iptables(t testing.TB, args ...string) {
	t.Helper()
	args = append([]string{"netns", "exec", n.namespace.name, "iptables", "-w"}, args...)
	ip(t, args...)
}
