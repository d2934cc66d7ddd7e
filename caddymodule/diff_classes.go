package caddymodule

import (
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/caddy-scope/caddy-scope/validator"
)

// patterns returns every pattern that tells paths apart, and how to write those
// that stand for segments that begin alike.
func (c *comparison) patterns(server string, b *routeBounds) ([]string, *strings.Replacer) {
	set := make(map[string]bool)
	for _, p := range b.paths {
		set[p] = true
	}
	for _, h := range []*rehearsal{c.was, c.is} {
		if !h.gatesAt(server) {
			continue
		}
		for _, gate := range h.app.gates {
			for _, rule := range gate.resource.Rules() {
				set[rule.Path] = true
			}
		}
	}
	delete(set, validator.Everything)
	for _, prefix := range b.prefixes {
		for p := range maps.Clone(set) {
			set[prefix+p] = true
		}
		set[prefix] = true
	}
	patterns := slices.DeleteFunc(slices.Sorted(maps.Keys(set)), func(p string) bool { return !validator.IsPattern(p) })
	var opened []string
	for _, p := range b.paths {
		if bare, open := strings.CutSuffix(p, "~"); open {
			opened = append(opened, p, bare+"{more}")
		}
	}
	return patterns, strings.NewReplacer(opened...)
}

// hostsOf returns the hosts to ask for.
func hostsOf(b *routeBounds) []string {
	hosts := []string{anyHost}
	for _, host := range b.hosts {
		if !strings.Contains(host, "{") && !slices.Contains(hosts, host) {
			hosts = append(hosts, host)
		}
	}
	return hosts
}

// methodClasses groups the methods that neither rules nor routes tell apart.
func (c *comparison) methodClasses(b *routeBounds) [][]string {
	lists := slices.Clone(b.methods)
	for _, h := range []*rehearsal{c.was, c.is} {
		for _, gate := range h.app.gates {
			for _, rule := range gate.resource.Rules() {
				lists = append(lists, rule.Methods)
			}
		}
	}
	var classes [][]string
	bySignature := make(map[string]int)
	for _, method := range validator.Methods() {
		signature := make([]byte, len(lists))
		for i, list := range lists {
			if slices.Contains(list, method) || method == http.MethodHead && slices.Contains(list, http.MethodGet) {
				signature[i] = 1
			}
		}
		i, known := bySignature[string(signature)]
		if !known {
			i = len(classes)
			bySignature[string(signature)] = i
			classes = append(classes, nil)
		}
		classes[i] = append(classes[i], method)
	}
	return classes
}

func inMethodOrder(names []string) []string {
	return slices.DeleteFunc(validator.Methods(), func(m string) bool { return !slices.Contains(names, m) })
}
