package caddymodule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/caddy-scope/caddy-scope/caddymodule/explain"
	"github.com/caddy-scope/caddy-scope/caddymodule/rules"
	"github.com/caddy-scope/caddy-scope/caddymodule/ruletest"
	"github.com/caddy-scope/caddy-scope/oauth"
)

// diffCommandOutput runs `caddy oauth diff` on two configurations.
func diffCommandOutput(t *testing.T, old, new string, args ...string) (string, error) {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"old.Caddyfile": old, "new.Caddyfile": new} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := runCommand(t, append([]string{"diff", filepath.Join(dir, "old.Caddyfile"), filepath.Join(dir, "new.Caddyfile"), "--adapter", "caddyfile"}, args...)...)
	return regexp.MustCompile(`\S+/(old|new)\.Caddyfile:`).ReplaceAllString(out, "$1:"), err
}

// RULE-04: TestDiffTellsWhatChanges: the changes an owner is afraid of.
func TestDiffTellsWhatChanges(t *testing.T) {
	t.Setenv("XDG_DATA_HOME", t.TempDir())
	replace := func(pairs ...string) string { return strings.NewReplacer(pairs...).Replace(ruledConfig) }
	for _, c := range []struct {
		name, new string
		want      []string
	}{
		{"nothing", replace("GET /me authenticated\n", "GET /me   authenticated # the same\n"), []string{"nothing changes"}},
		{"lines moved", replace("GET /me authenticated\n\t\t\tGET /health public\n", "GET /health public\n\t\t\tGET /me authenticated\n"), []string{"nothing changes"}},
		{"a new rule", replace("GET /health public", "GET /health public\n\t\t\tPUT /jobs/{id} jobs:write"), []string{"+ PUT /jobs/{any}", "callable now by  jobs:write", "no rule of the gate old:40: refused"}},
		{"a rule goes", replace("DELETE /jobs/{id} jobs:write\n", ""), []string{"- DELETE /jobs/{any}", "no more by  jobs:write", "no rule of the gate new:40: refused"}},
		{"another scope", replace("GET /jobs/* jobs:read", "GET /jobs/* admin"), []string{"~ GET /jobs/*", "callable now by  admin", "no more by       jobs:read, jobs:write"}},
		{"opened", replace("GET /me authenticated", "GET /me public"), []string{"+ GET /me", "anyone without a token"}},
		{"watched only", replace("GET /me authenticated", "observe GET /me authenticated"), []string{"+ GET /me", "anyone without a token", "open: only observed by the gate new:40  GET /me authenticated"}},
		{"watched only, as a whole", replace("GET /me authenticated", "GET /me authenticated\n\t\t\tmode observe"), []string{"+ DELETE /jobs/{any}", "open: only observed by the gate new:40"}},
		{"part of it", replace("GET /health public", "GET /health public\n\t\t\tGET /jobs/open public"), []string{"+ GET /jobs/open", "anyone without a token", "GET /jobs/* jobs:read  old:41"}},
		{"hierarchy", replace("implies jobs:read", ""), []string{"- GET /jobs/*", "no more by  jobs:write"}},
		{"the gate goes", replace("oauth_protect admin\n", ""), []string{"+ * /admin/*", "anyone without a token", "open: no gate stands before it"}},
		{"the gate leaves a part", replace("oauth_protect admin\n", "oauth_protect /admin/users/* admin\n"), []string{"+ * /admin/*  (except /admin/users/ /admin/users/*)", "- * /admin/users/  on", "the gate new:36 does not name it"}},
		{"the site goes", replace("api.example.com {", "other.example.com {"), []string{"- GET /jobs/*", "nothing takes it", "on other.example.com"}},
		{"a bypass", replace("GET /me authenticated", "GET /me authenticated\n\t\t\tbypass /open/*"), []string{"+ * /open/*", "bypasses the gate new:40", `~ gate new:40: bypass [{"path":["/open/*"]}], was none`}},
		{"a bypass by header", replace("\thandle {\n", "\t@own header Cookie *x*\n\thandle {\n", "GET /me authenticated", "GET /me authenticated\n\t\t\tbypass @own"), []string{`~ gate new:41: bypass [{"header":{"Cookie":["*x*"]}}], was none`, "the matcher header tells apart"}},
		{"a bypass goes with its gate", replace("oauth_protect admin", "oauth_protect admin {\n\t\t\tresource https://api.example.com/admin\n\t\t}"), []string{"tokens for       https://api.example.com/admin, was https://api.example.com"}},
		{"a client", replace("scope jobs:read jobs:write\n", "scope jobs:read\n"), []string{"~ client gpt: gets at most jobs:read, was gets at most jobs:read jobs:write"}},
		{"a tool", replace("POST /reports any admin jobs:write", "POST /reports any admin jobs:write\n\t\t\ttool report admin\n\t\t\ttool list authenticated"), []string{"- POST /reports  tool report", "no more by  jobs:write"}},
	} {
		out, err := diffCommandOutput(t, ruledConfig, c.new)
		if nothing := strings.Contains(c.want[0], "nothing changes"); nothing == (err != nil) {
			t.Errorf("%s: exit %v", c.name, err)
		}
		for _, want := range c.want {
			if !strings.Contains(out, want) {
				t.Errorf("%s: %q is not in\n%s", c.name, want, out)
			}
		}
	}
	out, err := diffCommandOutput(t, ruledConfig, replace("GET /me authenticated", "GET /me public"), "--json")
	var diff rules.Diff
	if err == nil || json.Unmarshal([]byte(strings.NewReplacer(`old:`, `"old:`, `new:`, `"new:`).Replace(out)), &diff) != nil || len(diff.Changes) != 1 || !slices.Equal(diff.Changes[0].Methods, []string{"GET", "HEAD"}) || !diff.Changes[0].GainedBy[0].Anonymous {
		t.Errorf("%v %s", err, out)
	}
	if _, err := diffCommandOutput(t, ruledConfig, "api.example.com {\n}\n"); err == nil || !strings.Contains(err.Error(), "new.Caddyfile: the configuration has no global option oauth") {
		t.Errorf("%v", err)
	}
}

// drawSites draws a configuration of two sites: rules, short forms in handle
// blocks, a part without a gate, a bypass, several resources.
func drawSites(t *rapid.T) string {
	segment := rapid.SampledFrom([]string{"a", "b", "{x}"})
	needs := rapid.SampledFrom([]string{"s1", "s2", "s3", "s1 s2", "any s1 s3", "authenticated", "public"})
	var scopes strings.Builder
	names := []string{"s1", "s2", "s3"}
	for i, name := range names {
		fmt.Fprintf(&scopes, "scope %s S {\n", name)
		if later := names[i+1:]; len(later) > 0 && rapid.IntRange(0, 2).Draw(t, "implies") == 0 {
			fmt.Fprintf(&scopes, "implies %s\n", rapid.SampledFrom(later).Draw(t, "implied"))
		}
		scopes.WriteString("}\n")
	}
	block := func() string {
		var b strings.Builder
		b.WriteString("oauth_protect {\n")
		for range rapid.IntRange(1, 4).Draw(t, "rules") {
			fmt.Fprintf(&b, "%s%s /%s%s %s\n", rapid.SampledFrom([]string{"", "", "", "observe "}).Draw(t, "observe"), rapid.SampledFrom([]string{"*", "GET", "POST", "GET,POST"}).Draw(t, "methods"),
				strings.Join(rapid.SliceOfN(segment, 1, 3).Draw(t, "segments"), "/"), rapid.SampledFrom([]string{"", "", "/*"}).Draw(t, "end"), needs.Draw(t, "needs"))
		}
		if rapid.IntRange(0, 3).Draw(t, "bypass") == 0 {
			b.WriteString("bypass /b/a/*\n")
		}
		if rapid.IntRange(0, 5).Draw(t, "mode") == 0 {
			b.WriteString("mode observe\n")
		}
		b.WriteString("}\nreverse_proxy 127.0.0.1:1\n")
		return b.String()
	}
	site := func(host, resource string) string {
		handled := rapid.SampledFrom([]string{
			"", "", "handle /b/* {\noauth_protect s2\nreverse_proxy 127.0.0.1:2\n}\n", "handle /b/* {\nreverse_proxy 127.0.0.1:2\n}\n",
			"handle /b* {\noauth_protect /b/a any s1 s2\nreverse_proxy 127.0.0.1:2\n}\n", "handle /a {\nrespond ok 200\n}\n",
		}).Draw(t, "handle")
		body := block()
		if resource != "" {
			body = strings.Replace(body, "oauth_protect {", "oauth_protect {\nresource "+resource, 1)
		}
		return host + " {\noauth_server\n" + handled + "handle {\n" + body + "}\n}\n"
	}
	second := rapid.SampledFrom([]string{"", "https://api.example.com/two"}).Draw(t, "resource")
	return "{\noauth {\nissuer https://api.example.com\npostgres postgres://127.0.0.1:1/none\n" + scopes.String() + "client c {\nredirect_uri http://127.0.0.1/cb\n}\nlogin password\n}\n}\n" +
		site("api.example.com", "") + site("two.example.com", second)
}

// RULE-05: TestDiffIsRightAboutEveryRequest: random configurations and requests; whoever
// passes under one of them and not under the other is in a change, and nobody
// else is. Both rehearsed configurations are asked with every set of scopes.
func TestDiffIsRightAboutEveryRequest(t *testing.T) {
	t.Setenv("XDG_DATA_HOME", t.TempDir())
	compared, differed := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		if compared > 3000 && differed > 300 { // enough
			return
		}
		was, err := tryRehearse(drawSites(t))
		if err != nil {
			return // rules that cannot stand beside each other
		}
		is, err := tryRehearse(drawSites(t))
		if err != nil {
			return
		}
		diff, err := compareConfigurations(context.Background(), was, is, nil)
		if err != nil {
			t.Fatalf("%v", err)
		}
		for range 8 {
			q := rehearsedRequest{
				method: rapid.SampledFrom([]string{"GET", "HEAD", "POST", "DELETE"}).Draw(t, "method"),
				path:   "/" + strings.Join(rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c", "bc"}), 1, 4).Draw(t, "path"), "/") + rapid.SampledFrom([]string{"", "", "/"}).Draw(t, "slash"),
				host:   rapid.SampledFrom([]string{"api.example.com", "two.example.com", "three.example.com"}).Draw(t, "host"),
				client: "c",
			}
			of := changesOf(t, diff, q)
			if slices.ContainsFunc(of, func(c rules.Change) bool { return c.Was != of[0].Was || c.Is != of[0].Is }) {
				t.Fatalf("%s %s %s is in %d changes: %+v", q.method, q.host, q.path, len(of), of)
			}
			for mask := -1; mask < 8; mask++ { // -1: nobody
				q.anyone, q.scopes = mask < 0, nil
				for i, name := range []string{"s1", "s2", "s3"} {
					if mask >= 0 && mask&(1<<i) != 0 {
						q.scopes = append(q.scopes, name)
					}
				}
				before, now := passesIn(t, was, q), passesIn(t, is, q)
				gained, lost := saidOf(of, q)
				if (gained && !before) != (now && !before) || (lost && !now) != (before && !now) || gained && !now || lost && !before {
					t.Fatalf("%s %s%s anyone %t with %q: passed %t, passes %t; the diff says gained %t, lost %t\n%+v", q.method, q.host, q.path, q.anyone, q.scopes, before, now, gained, lost, of)
				}
				compared++
				if before != now {
					differed++
				}
			}
		}
	})
	if compared < 1000 || differed < 100 {
		t.Errorf("%d requests compared, %d differed: too few", compared, differed)
	}
}

// passesIn reports whether the request gets to a handler.
func passesIn(t *rapid.T, h *rehearsal, q rehearsedRequest) bool {
	e, err := h.explain(q)
	if err != nil {
		t.Fatalf("%v", err)
	}
	return e.Outcome != explain.Refused && (e.Handler != "" || e.Answer != nil && e.Answer.Status == 200)
}

// changesOf returns the changes whose requests hold q.
func changesOf(t *rapid.T, diff *rules.Diff, q rehearsedRequest) (of []rules.Change) {
	for _, c := range diff.Changes {
		host := slices.ContainsFunc(c.Hosts, func(h string) bool {
			h, _, _ = strings.Cut(h, " ")
			return h == q.host || h == "*" && q.host == "three.example.com"
		})
		if host && slices.Contains(c.Methods, q.method) && inPattern(c.Path, q.path) && !slices.ContainsFunc(c.Except, func(p string) bool { return inPattern(p, q.path) }) {
			of = append(of, c)
		}
	}
	return of
}

// inPattern matches a pattern of a diff by hand.
func inPattern(pattern, path string) bool {
	rest, below := strings.CutSuffix(pattern, "/*")
	expression := regexp.QuoteMeta(rest)
	expression = strings.ReplaceAll(expression, `\{any\}`, `[^/]+`)
	// Segments that begin alike, but for those that are written out.
	expression = strings.ReplaceAll(expression, `\{more\}`, `[^/]+`)
	if below {
		expression += "/.+"
	}
	return regexp.MustCompile("^" + expression + "$").MatchString(path)
}

func saidOf(of []rules.Change, q rehearsedRequest) (gained, lost bool) {
	holds := func(callers []rules.Caller) bool {
		return slices.ContainsFunc(callers, func(c rules.Caller) bool {
			return c.Anonymous || !q.anyone && oauth.NewScopeSet(q.scopes...).ContainsAll(c.Scopes)
		})
	}
	for _, c := range of {
		gained, lost = gained || holds(c.GainedBy), lost || holds(c.LostBy)
	}
	return gained, lost
}

// TestLongCommandsStopWhenInterrupted, and tell how far they have come.
func TestLongCommandsStopWhenInterrupted(t *testing.T) {
	t.Setenv("XDG_DATA_HOME", t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	h := rehearseCaddyfile(t, ruledConfig)
	asked := 0
	_, err := compareConfigurations(ctx, h, rehearseCaddyfile(t, ruledConfig), func(n int) {
		if asked = n; n == 10 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) || asked != 10 {
		t.Errorf("%v after %d requests", err, asked)
	}
	var told strings.Builder
	p := newProgress(&told, "cases run")
	p.next = time.Now()
	if _, err := h.runSuites(ctx, p, [][]ruletest.Case{h.generatedCases()}, []string{"generated"}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	p.at(7)
	p.at(8) // too soon after the other
	if told.String() != "7 cases run\n" {
		t.Errorf("%q", told.String())
	}
}
