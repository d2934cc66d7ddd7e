package validator

import "strings"

// Find returns the rule that decides about requests with the method for the
// decoded path, nil when there is none. It is the table's answer; a request may
// be refused before.
func (r *Resource) Find(method, path string) *Rule {
	i := methodIndex(method)
	if i < 0 {
		return nil
	}
	return r.table.match(i, path)
}

// Example is a request that a rule decides about.
type Example struct {
	Rule   *Rule
	Method string
	Path   string // decoded; segments that no rule names stand for wildcards
}

// Examples returns an example for each rule, in the order of Rules; its method
// is empty when more specific rules leave the rule none of that kind.
func (r *Resource) Examples() []Example {
	patterns := make([]string, len(r.table.rules))
	deepest := 0
	for i, rule := range r.table.rules {
		patterns[i] = rule.Path
		deepest = max(deepest, strings.Count(rule.Path, "/"))
	}
	fresh := freshSegment(patterns)
	examples := make([]Example, len(r.table.rules))
	for i, rule := range r.table.rules {
		examples[i] = r.table.example(rule, fresh, deepest)
	}
	return examples
}

func (t *ruleTable) example(rule *Rule, fresh string, deepest int) Example {
	p, _ := parsePattern(rule.Path) // compiled before
	path := ""
	for _, segment := range p.segments {
		if segment == wildcard {
			segment = fresh
		}
		path += "/" + segment
	}
	candidates := []string{path}
	if p.below || p.everything {
		candidates = nil
		for range deepest + 1 {
			path += "/" + fresh
			candidates = append(candidates, path, path+"/")
		}
	}
	set := newMethodSet(rule.Methods)
	for _, candidate := range candidates {
		for i, name := range methods {
			if set&(1<<i) != 0 && t.match(i, candidate) == rule {
				return Example{rule, name, candidate}
			}
		}
	}
	return Example{Rule: rule}
}
