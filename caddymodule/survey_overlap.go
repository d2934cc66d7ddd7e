package caddymodule

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// hop is one route on the way to a step.
type hop struct {
	list     *caddyhttp.Route // first route of the list: which list it is
	index    int              // place in the list
	group    string
	terminal bool
	matchers []matcherSet // empty: every request
}

// matcherSet is what can be said about one set of matchers. A nil slice says
// nothing about its dimension.
type matcherSet struct {
	hosts, methods, paths []string
}

func newHop(list *caddyhttp.Route, index int, route *caddyhttp.Route) *hop {
	h := &hop{list: list, index: index, group: route.Group, terminal: route.Terminal}
	for _, raw := range route.MatcherSetsRaw {
		var set matcherSet
		_ = json.Unmarshal(raw["host"], &set.hosts)
		_ = json.Unmarshal(raw["method"], &set.methods)
		_ = json.Unmarshal(raw["path"], &set.paths)
		h.matchers = append(h.matchers, set)
	}
	for _, loaded := range route.MatcherSets {
		var set matcherSet
		for _, matcher := range loaded {
			switch matcher := matcher.(type) {
			case *caddyhttp.MatchHost:
				set.hosts = *matcher
			case *caddyhttp.MatchMethod:
				set.methods = *matcher
			case *caddyhttp.MatchPath:
				set.paths = *matcher
			}
		}
		h.matchers = append(h.matchers, set)
	}
	return h
}

// namesHosts reports whether the route is for named hosts only.
func (h *hop) namesHosts() bool {
	return len(h.matchers) > 0 && !slices.ContainsFunc(h.matchers, func(s matcherSet) bool { return s.hosts == nil })
}

func (h *hop) same(other *hop) bool { return h.list == other.list && h.index == other.index }

// canMeetBoth reports whether one request may meet both steps, the second
// after the first. When in doubt it says yes.
func canMeetBoth(first, second *step) bool {
	fork := 0
	for fork < len(first.chain) && fork < len(second.chain) && first.chain[fork].same(second.chain[fork]) {
		fork++
	}
	for _, a := range first.chain[fork:] {
		if a.terminal { // nothing is run after it
			return false
		}
	}
	if fork < len(first.chain) && fork < len(second.chain) {
		a, b := first.chain[fork], second.chain[fork]
		if a.list == b.list && a.group != "" && a.group == b.group { // one route of a group is run
			return false
		}
	}
	for _, a := range first.chain[fork:] {
		for _, b := range second.chain[fork:] {
			if disjointMatchers(a.matchers, b.matchers) {
				return false
			}
		}
	}
	return true
}

// isOnEveryWayTo reports whether a request that comes to other has come
// through s.
func (s *step) isOnEveryWayTo(other *step) bool {
	for _, h := range s.chain {
		if len(h.matchers) > 0 && !slices.ContainsFunc(other.chain, h.same) {
			return false
		}
	}
	return canMeetBoth(s, other)
}

func disjointMatchers(a, b []matcherSet) bool {
	if len(a) == 0 || len(b) == 0 {
		return false
	}
	for _, x := range a {
		for _, y := range b {
			if !disjointBy(x.hosts, y.hosts, sameHost) && !disjointBy(x.methods, y.methods, equalStrings) && !disjointBy(x.paths, y.paths, mayMatchSamePath) {
				return false
			}
		}
	}
	return true
}

// disjointBy reports whether no value of a and value of b can go together.
func disjointBy(a, b []string, together func(x, y string) bool) bool {
	if a == nil || b == nil {
		return false
	}
	for _, x := range a {
		for _, y := range b {
			if together(x, y) {
				return false
			}
		}
	}
	return true
}

func equalStrings(x, y string) bool { return x == y }

func sameHost(x, y string) bool {
	return strings.ContainsAny(x+y, "*{") || strings.EqualFold(x, y)
}

// mayMatchSamePath compares patterns of Caddy's path matcher. Only exact paths
// and prefixes are told apart.
func mayMatchSamePath(x, y string) bool {
	x, y = strings.ToLower(x), strings.ToLower(y)
	xPrefix, xOpen := strings.CutSuffix(x, "*")
	yPrefix, yOpen := strings.CutSuffix(y, "*")
	switch {
	case strings.ContainsAny(xPrefix+yPrefix, "*%{"):
		return true
	case xOpen && yOpen:
		return strings.HasPrefix(xPrefix, yPrefix) || strings.HasPrefix(yPrefix, xPrefix)
	case xOpen:
		return strings.HasPrefix(y, xPrefix)
	case yOpen:
		return strings.HasPrefix(x, yPrefix)
	}
	return x == y
}

// gatesOverlap reports whether both gates would decide some request. Only
// short forms with a matcher leave requests alone.
func gatesOverlap(a, b *Protect) bool {
	if !a.PassUnmatched || !b.PassUnmatched {
		return true
	}
	for _, x := range a.Rules {
		for _, y := range b.Rules {
			if methodsOverlap(x.Methods, y.Methods) && pathsOverlap(x.Path, y.Path) {
				return true
			}
		}
	}
	return false
}

func methodsOverlap(a, b []string) bool {
	return len(a) == 0 || len(b) == 0 || slices.ContainsFunc(a, func(m string) bool {
		return slices.Contains(b, m) || (m == "GET" && slices.Contains(b, "HEAD")) || (m == "HEAD" && slices.Contains(b, "GET"))
	})
}

// pathsOverlap compares patterns of scope rules.
func pathsOverlap(a, b string) bool {
	if a == "*" || b == "*" {
		return true
	}
	x, y := strings.Split(a, "/"), strings.Split(b, "/")
	for i := 0; i < len(x) && i < len(y); i++ {
		if (x[i] == "*" && i == len(x)-1) || (y[i] == "*" && i == len(y)-1) { // everything below
			return true
		}
		if x[i] != y[i] && !isWildcard(x[i]) && !isWildcard(y[i]) {
			return false
		}
	}
	return len(x) == len(y)
}

func isWildcard(segment string) bool {
	return segment == "*" || strings.HasPrefix(segment, "{")
}
