package validator

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/caddy-scope/caddy-scope/oauth"
)

func testCatalog(t testing.TB) *oauth.Catalog {
	t.Helper()
	c, err := oauth.NewCatalog([]oauth.Scope{{Name: "a", Description: "A"}, {Name: "b", Description: "B"}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func rule(method, path string) Rule {
	r := Rule{Path: path, Access: AccessScopes, Scopes: oauth.NewScopeSet("a"), Source: "Caddyfile:" + fmt.Sprint(len(path))}
	if method != "*" {
		r.Methods = strings.Split(method, ",")
	}
	return r
}

func TestRuleTableRefusesWhatCannotStand(t *testing.T) {
	t.Parallel()
	with := func(r Rule, change func(*Rule)) Rule { change(&r); return r }
	for _, c := range []struct {
		name  string
		rules []Rule
		want  string
	}{
		{"relative path", []Rule{rule("GET", "jobs")}, "must begin with /"},
		{"empty segment", []Rule{rule("GET", "/jobs//x")}, "has an empty segment"},
		{"dot segment", []Rule{rule("GET", "/jobs/../x")}, "can never match"},
		{"half a wildcard", []Rule{rule("GET", "/jobs/a*")}, "stand for a whole segment"},
		{"encoded", []Rule{rule("GET", "/caf%C3%A9")}, "write it decoded"},
		{"our own path", []Rule{rule("GET", "/oauth/token")}, "never gated"},
		{"lower-case method", []Rule{rule("get", "/jobs")}, "methods are upper case"},
		{"unknown method", []Rule{rule("FETCH", "/jobs")}, "is not known"},
		{"method twice", []Rule{rule("GET,GET", "/jobs")}, "named twice"},
		{"undeclared scope", []Rule{with(rule("GET", "/x"), func(r *Rule) { r.Scopes = oauth.NewScopeSet("nope") })}, `"nope" is not declared`},
		{"no requirement", []Rule{with(rule("GET", "/x"), func(r *Rule) { r.Scopes = nil })}, "says not what is needed"},
		{"reserved beside scopes", []Rule{with(rule("GET", "/x"), func(r *Rule) { r.Scopes = oauth.NewScopeSet("a", "public") })}, "cannot stand beside scopes"},
		{"public with scopes", []Rule{with(rule("GET", "/x"), func(r *Rule) { r.Access = AccessPublic })}, "stands alone"},
		{"same requests", []Rule{rule("GET", "/jobs/{id}"), rule("GET", "/jobs/{name}")}, "matches the same requests as"},
		{"crossing paths", []Rule{rule("GET", "/a/{x}/c"), rule("GET", "/a/b/{y}")}, "neither is more specific"},
		{"crossing methods", []Rule{rule("GET,POST", "/a"), rule("POST,PUT", "/a")}, "neither is more specific"},
		{"method against path", []Rule{rule("GET", "/jobs/*"), rule("*", "/jobs/x")}, "neither is more specific"},
		{"unreachable", []Rule{rule("GET,POST", "/a"), rule("GET", "/a"), rule("POST", "/a")}, "is unreachable"},
		{"unreachable together", []Rule{rule("GET", "/a/*"), rule("GET", "/a/{x}"), rule("GET", "/a/{x}/"), rule("GET", "/a/{x}/*")}, "is unreachable"},
		{"unreachable two deep", []Rule{
			rule("GET", "/a/*"), rule("GET", "/a/{x}"), rule("GET", "/a/{x}/"),
			rule("GET", "/a/{x}/{y}"), rule("GET", "/a/{x}/{y}/"), rule("GET", "/a/{x}/{y}/*"),
		}, "is unreachable"},
		{"unreachable by methods together", []Rule{rule("GET,POST", "/a/*"), rule("GET", "/a/*"), rule("POST", "/a/{x}"), rule("POST", "/a/{x}/"), rule("POST", "/a/{x}/*")}, "is unreachable"},
		{"unreachable everything", []Rule{rule("GET", "*"), rule("GET", "/"), rule("GET", "/*")}, "is unreachable"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := newRuleTable(c.rules, testCatalog(t))
			var ruleErr *RuleError
			if !errors.As(err, &ruleErr) || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v, want %q", err, c.want)
			}
			if n := strings.Count(err.Error(), "Caddyfile:"); n != 1+boolInt(ruleErr.Other != nil) {
				t.Errorf("the error names %d lines: %v", n, err)
			}
		})
	}
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

func TestMostSpecificRuleDecides(t *testing.T) {
	t.Parallel()
	table, err := newRuleTable([]Rule{
		rule("*", "*"), rule("*", "/jobs/*"), rule("GET", "/jobs/{id}"), rule("GET", "/jobs/search"), rule("HEAD", "/jobs/search"),
		rule("*", "/"), rule("GET", "/jobs/"), rule("GET", "/a/{x}/c"), rule("GET", "/a/b/d"),
	}, testCatalog(t))
	if err != nil {
		t.Fatal(err)
	}
	for request, want := range map[string]string{
		"GET /jobs/search": "GET /jobs/search a", "HEAD /jobs/search": "HEAD /jobs/search a",
		"GET /jobs/7": "GET /jobs/{id} a", "HEAD /jobs/7": "GET /jobs/{id} a", "POST /jobs/7": "* /jobs/* a",
		"GET /jobs/7/x": "* /jobs/* a", "GET /jobs/7/": "* /jobs/* a", "GET /jobs/": "GET /jobs/ a", "POST /jobs/": "* * a",
		"GET /jobs": "* * a", "GET /": "* / a", "GET /a/b/c": "GET /a/{x}/c a", "GET /a/b/d": "GET /a/b/d a", "GET /a/b/e": "* * a",
	} {
		method, path, _ := strings.Cut(request, " ")
		if got := table.match(methodIndex(method), path); got == nil || got.String() != want {
			t.Errorf("%s: got %v, want %s", request, got, want)
		}
	}
}

// U-15: net/http.ServeMux, which has the same idea of specificity, is the
// oracle: for conflicts and for the rule that decides, whatever the order.
func TestRuleTableAgreesWithServeMux(t *testing.T) {
	t.Parallel()
	segment := rapid.SampledFrom([]string{"a", "b", "{x}"})
	c := testCatalog(t)
	rapid.Check(t, func(t *rapid.T) {
		var rules []Rule
		mux, muxConflict := http.NewServeMux(), false
		for i := range rapid.IntRange(1, 5).Draw(t, "rules") {
			method := rapid.SampledFrom([]string{"*", "GET", "POST"}).Draw(t, "method")
			parts := rapid.SliceOfN(segment, 1, 3).Draw(t, "segments")
			below := rapid.Bool().Draw(t, "below")
			pattern, ours := muxPattern(method, parts, below)
			r := rule(method, ours)
			r.Source = fmt.Sprint(i)
			rules = append(rules, r)
			func() {
				defer func() { muxConflict = recover() != nil || muxConflict }()
				mux.HandleFunc(pattern, func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Rule", fmt.Sprint(i)) })
			}()
		}
		table, err := newRuleTable(rules, c)
		if err == nil && muxConflict && firstConflict(rules) == nil {
			return // a rule stands for what crossing ones share, which ServeMux refuses
		}
		if (err != nil) != muxConflict {
			t.Fatalf("conflict: ours %v, ServeMux %v", err, muxConflict)
		}
		if err != nil {
			return
		}
		path := "/" + strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c"}), 1, 4).Draw(t, "path"), "/")
		method := rapid.SampledFrom([]string{"GET", "HEAD", "POST", "PUT"}).Draw(t, "request method")
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequest(method, path, nil))
		if w.Code/100 == 3 {
			return // ServeMux redirects to a trailing slash; we match paths as they are
		}
		got := ""
		if r := table.match(methodIndex(method), path); r != nil {
			got = r.Source
		}
		if want := w.Header().Get("Rule"); got != want {
			t.Fatalf("%s %s: ours %q, ServeMux %q", method, path, got, want)
		}
	})
}

// muxPattern writes one rule in both grammars. A final /* of ours is
// /{first}/{rest...} and needs one more segment there.
func muxPattern(method string, parts []string, below bool) (mux, ours string) {
	named := make([]string, len(parts))
	for i, part := range parts {
		named[i] = strings.ReplaceAll(part, "x", fmt.Sprintf("x%d", i))
	}
	ours = "/" + strings.Join(parts, "/")
	mux = "/" + strings.Join(named, "/")
	if below {
		ours, mux = ours+"/*", mux+"/{rest...}"
	}
	if method != "*" {
		mux = method + " " + mux
	}
	return mux, ours
}

func TestMatchAllocatesNothing(t *testing.T) {
	table, err := newRuleTable([]Rule{rule("GET", "/jobs/{id}"), rule("GET", "/jobs/*")}, testCatalog(t))
	if err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() { table.match(0, "/jobs/7/applications") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkMatch: ten thousand rules cost a look-up no more than ten do, give or
// take what the processor's cache does not hold.
func BenchmarkMatch(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			table, err := newRuleTable(manyRules(n), testCatalog(b))
			if err != nil {
				b.Fatal(err)
			}
			var paths []string // spread over the table
			for i := range 512 {
				paths = append(paths, fmt.Sprintf("/v1/things%d/42/notes/7", (i*7919)%(n/5)))
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if table.match(2, paths[i%len(paths)]) == nil {
					b.Fatal("no rule")
				}
			}
		})
	}
}
