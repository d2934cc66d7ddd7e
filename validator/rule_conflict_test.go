package validator

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestConflictsAreThoseOfAllPairs: the walk finds what looking at every pair of
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
				return &RuleError{Rule: a, Other: &b, Problem: "neither is more specific for the requests that both match"}
			}
		}
	}
	return nil
}

// TestLargeTablesAreBuiltByLookingAtFewPairs: ten thousand rules, as a large API
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
