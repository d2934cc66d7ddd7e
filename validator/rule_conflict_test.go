package validator

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// RULE-09: TestConflictsAreThoseOfAllPairs: the walk finds what looking at every pair of
// rules finds, and of several conflicts the same one.
func TestConflictsAreThoseOfAllPairs(t *testing.T) {
	t.Parallel()
	c := testCatalog(t)
	found := 0
	rapid.Check(t, func(t *rapid.T) {
		var rules []Rule
		for i := range rapid.IntRange(2, 8).Draw(t, "rules") {
			path := "/" + strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c", "{x}"}), 1, 3).Draw(t, "segments"), "/")
			path += rapid.SampledFrom([]string{"", "", "/", "/*"}).Draw(t, "end")
			if rapid.IntRange(0, 9).Draw(t, "everything") == 0 {
				path = Everything
			}
			r := rule(rapid.SampledFrom([]string{"*", "GET", "HEAD", "POST", "GET,POST", "POST,PUT"}).Draw(t, "methods"), path)
			r.Source = fmt.Sprintf("Caddyfile:%d", i)
			rules = append(rules, r)
		}
		want := firstConflict(rules)
		_, err := newRuleTable(rules, c)
		var got *RuleError
		errors.As(err, &got)
		switch {
		case want == nil && (got == nil || strings.Contains(got.Problem, "unreachable")):
			return
		case want == nil || got == nil || got.Error() != want.Error():
			t.Fatalf("got %v, want %v", got, want)
		}
		found++
	})
	if found < 20 {
		t.Errorf("%d tables had a conflict: they show too little", found)
	}
}

// firstConflict looks at every pair.
func firstConflict(rules []Rule) *RuleError {
	for i, a := range rules {
		for _, b := range rules[:i] {
			p, _ := parsePattern(a.Path)
			q, _ := parsePattern(b.Path)
			switch both(compareMethods(newMethodSet(a.Methods), newMethodSet(b.Methods)), comparePatterns(p, q)) {
			case equal:
				return &RuleError{Rule: a, Other: &b, Problem: "matches the same requests as"}
			case crossing:
				if !isCovered(rules, a, b) {
					return &RuleError{Rule: a, Other: &b, Problem: "neither is more specific for the requests that both match"}
				}
			}
		}
	}
	return nil
}

// isCovered reports whether a rule matches what both match, and nothing else.
func isCovered(rules []Rule, a, b Rule) bool {
	for _, c := range rules {
		r, _ := parsePattern(c.Path)
		set := newMethodSet(c.Methods)
		within := true
		for _, o := range []Rule{a, b} {
			p, _ := parsePattern(o.Path)
			rel := both(compareMethods(set, newMethodSet(o.Methods)), comparePatterns(r, p))
			within = within && (rel == narrower || rel == equal)
		}
		if !within || set != newMethodSet(a.Methods)&newMethodSet(b.Methods) {
			continue
		}
		p, _ := parsePattern(a.Path)
		q, _ := parsePattern(b.Path)
		if n := max(len(p.segments), len(q.segments)); p.everything || q.everything || len(r.segments) == n && r.wildcards() == bothWildcards(p, q) {
			if p.everything && comparePatterns(r, q) != equal || q.everything && comparePatterns(r, p) != equal {
				continue
			}
			return true
		}
	}
	return false
}

func (p pattern) wildcards() (n int) {
	for _, segment := range p.segments {
		if segment == wildcard {
			n++
		}
	}
	return n
}

// bothWildcards counts the segments that neither pattern says anything about.
func bothWildcards(p, q pattern) (n int) {
	free := func(p pattern, i int) bool { return i >= len(p.segments) || p.segments[i] == wildcard }
	for i := range max(len(p.segments), len(q.segments)) {
		if free(p, i) && free(q, i) {
			n++
		}
	}
	return n
}

// RULE-10: TestNarrowestRuleDecidesWhereRulesCross: random tables that stand; the rule
// found is within every rule that matches, looked at one by one.
func TestNarrowestRuleDecidesWhereRulesCross(t *testing.T) {
	t.Parallel()
	c := testCatalog(t)
	segment := rapid.SampledFrom([]string{"a", "b", "{x}"})
	crossed := 0
	rapid.Check(t, func(t *rapid.T) {
		rules := []Rule{rule("GET", "/{x}/b"), rule("GET", "/a/{y}"), rule("GET", "/a/b"), rule("*", "/a/*"), rule("GET", "/{x}/*"), rule("GET", "/a/{x}/c"), rule("GET", "/{x}/b/c"), rule("GET", "/a/b/c"), rule("GET", "/a/*")}
		rules = rapid.SliceOfNDistinct(rapid.SampledFrom(rules), 3, len(rules), func(r Rule) string { return r.String() }).Draw(t, "rules")
		for range rapid.IntRange(0, 2).Draw(t, "more") {
			rules = append(rules, rule(rapid.SampledFrom([]string{"GET", "*"}).Draw(t, "method"), "/"+strings.Join(rapid.SliceOfN(segment, 1, 3).Draw(t, "segments"), "/")+rapid.SampledFrom([]string{"", "/*"}).Draw(t, "end")))
		}
		table, err := newRuleTable(rules, c)
		if err != nil {
			return
		}
		for range 20 {
			path := "/" + strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c"}), 1, 4).Draw(t, "path"), "/")
			got := table.match(0, path)
			var matching []*Rule
			for _, r := range table.rules {
				if r.Methods == nil || r.Methods[0] == "GET" {
					if p, _ := parsePattern(r.Path); contains(t, p.String(), path) {
						matching = append(matching, r)
					}
				}
			}
			if (got == nil) != (len(matching) == 0) {
				t.Fatalf("%s: %v of %v", path, got, matching)
			}
			if len(matching) > 2 {
				crossed++
			}
			for _, other := range matching {
				if other == got {
					continue
				}
				p, _ := parsePattern(got.Path)
				q, _ := parsePattern(other.Path)
				if rel := both(compareMethods(newMethodSet(got.Methods), newMethodSet(other.Methods)), comparePatterns(p, q)); rel != narrower {
					t.Fatalf("%s: %v decides, beside %v", path, got, other)
				}
			}
		}
	})
	if crossed == 0 { // some thirty, as chance has it
		t.Error("no request came under three rules")
	}
}

// RULE-09: TestLargeTablesAreBuiltByLookingAtFewPairs: ten thousand rules, as a large API
// has them.
func TestLargeTablesAreBuiltByLookingAtFewPairs(t *testing.T) {
	t.Parallel()
	rules := manyRules(10_000)
	if _, err := newRuleTable(rules, testCatalog(t)); err != nil {
		t.Fatal(err)
	}
	var placed ruleIndex
	looked := 0
	for i := range rules {
		p, err := parsePattern(rules[i].Path)
		if err != nil {
			t.Fatal(err)
		}
		rule := &placedRule{&rules[i], p, newMethodSet(rules[i].Methods), i}
		for range placed.sharing(p) {
			looked++
		}
		placed.add(rule)
	}
	if looked > 4*len(rules) {
		t.Errorf("%d pairs were looked at for %d rules", looked, len(rules))
	}
}

// manyRules returns rules such as those of a large API: collections, members,
// and what belongs to a member.
func manyRules(n int) []Rule {
	shapes := []string{"GET /v1/things%d", "POST /v1/things%d", "GET /v1/things%d/{id}", "PATCH /v1/things%d/{id}", "* /v1/things%d/{id}/notes/*"}
	rules := make([]Rule, n)
	for i := range rules {
		method, path, _ := strings.Cut(fmt.Sprintf(shapes[i%len(shapes)], i/len(shapes)), " ")
		rules[i] = rule(method, path)
	}
	return rules
}

func BenchmarkNewRuleTable(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			rules, catalog := manyRules(n), testCatalog(b)
			for b.Loop() {
				if _, err := newRuleTable(rules, catalog); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// RULE-10: TestOverlapsMakeATableOfCrossingRules: random rules; with a rule for each
// overlap they stand, and where several of them decide about a path, the overlap
// that is found names them all.
func TestOverlapsMakeATableOfCrossingRules(t *testing.T) {
	t.Parallel()
	c := testCatalog(t)
	segment := rapid.SampledFrom([]string{"a", "b", "{x}"})
	shared := 0
	rapid.Check(t, func(t *rapid.T) {
		given := rapid.SliceOfNDistinct(rapid.Custom(func(t *rapid.T) Rule {
			path := "/" + strings.Join(rapid.SliceOfN(segment, 2, 4).Draw(t, "segments"), "/") + rapid.SampledFrom([]string{"", "", "/*"}).Draw(t, "end")
			return rule(rapid.SampledFrom([]string{"GET", "GET", "*", "GET,POST"}).Draw(t, "methods"), path)
		}), 3, 6, func(r Rule) string { return r.String() }).Draw(t, "rules")
		rules := given
		overlaps := Overlaps(given)
		for i := range overlaps {
			rules = append(rules, Rule{Methods: overlaps[i].Methods, Path: overlaps[i].Path, Access: AccessAuthenticated, Source: fmt.Sprint(i)})
		}
		table, err := newRuleTable(rules, c)
		if err != nil {
			if strings.Contains(err.Error(), "neither is more specific") || strings.Contains(err.Error(), "the same requests") {
				t.Fatalf("%v", err)
			}
			return // unreachable
		}
		for range 150 {
			path := "/" + strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{"a", "a", "b", "b", "c"}), 1, 4).Draw(t, "path"), "/")
			narrowest := narrowestByHand(t, given, path)
			if len(narrowest) < 2 {
				continue
			}
			shared++
			got := table.match(0, path)
			if got == nil || got.Access != AccessAuthenticated {
				t.Fatalf("%s: %v decides, and %q match", path, got, narrowest)
			}
			var of []string
			for i, o := range overlaps {
				if got.Source == fmt.Sprint(i) {
					for _, r := range o.Rules {
						of = append(of, r.String())
					}
				}
			}
			if strings.Join(of, ";") != strings.Join(narrowest, ";") {
				t.Fatalf("%s: overlap of %q, and %q match", path, of, narrowest)
			}
		}
	})
	if shared < 30 {
		t.Errorf("%d paths came under crossing rules: too few", shared)
	}
}

// narrowestByHand returns the rules that match a GET of path without those that
// are wider than another one, looked at pair by pair.
func narrowestByHand(t *rapid.T, rules []Rule, path string) (narrowest []string) {
	wider := func(a, b Rule) bool {
		p, _ := parsePattern(a.Path)
		q, _ := parsePattern(b.Path)
		return both(compareMethods(newMethodSet(a.Methods), newMethodSet(b.Methods)), comparePatterns(p, q)) == wider
	}
	var matching []Rule
	for _, r := range rules {
		if p, _ := parsePattern(r.Path); newMethodSet(r.Methods)&1 != 0 && contains(t, p.String(), path) {
			matching = append(matching, r)
		}
	}
	for _, a := range matching {
		if !slices.ContainsFunc(matching, func(b Rule) bool { return wider(a, b) }) {
			narrowest = append(narrowest, a.String())
		}
	}
	return narrowest
}

// RULE-03: TestCompareIsRightAboutEveryRequest: random lists of rules, against every
// short request over a few segments.
func TestCompareIsRightAboutEveryRequest(t *testing.T) {
	t.Parallel()
	var paths []string
	for level := []string{""}; len(level[0]) < 8; {
		var next []string
		for _, path := range level {
			for _, segment := range []string{"a", "b", "c"} {
				next = append(next, path+"/"+segment)
				paths = append(paths, path+"/"+segment, path+"/"+segment+"/")
			}
		}
		level = next
	}
	drawn := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Rule {
		path := "/" + strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "{x}"}), 1, 3).Draw(t, "segments"), "/") + rapid.SampledFrom([]string{"", "", "/", "/*"}).Draw(t, "end")
		return rule(rapid.SampledFrom([]string{"GET", "HEAD", "*", "GET,POST", "POST"}).Draw(t, "methods"), path)
	}), 1, 3)
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawn.Draw(t, "a"), drawn.Draw(t, "b")
		type pair struct{ i, j int }
		got := make(map[pair]bool) // to within
		Compare(a, b, func(i, j int, within bool) { got[pair{i, j}] = within })
		for i, x := range a {
			for j, y := range b {
				shared, within := false, true
				for _, path := range paths {
					p, _ := parsePattern(x.Path)
					q, _ := parsePattern(y.Path)
					first, second := contains(t, p.String(), path), contains(t, q.String(), path)
					for method := range methods {
						inFirst, inSecond := first && newMethodSet(x.Methods)&(1<<method) != 0, second && newMethodSet(y.Methods)&(1<<method) != 0
						shared = shared || inFirst && inSecond
						within = within && (!inFirst || inSecond)
					}
				}
				if said, found := got[pair{i, j}]; found != shared || found && said != within {
					t.Fatalf("%s and %s: found %t, within %t; of all requests %t, %t", x, y, found, said, shared, within)
				}
			}
		}
	})
}
