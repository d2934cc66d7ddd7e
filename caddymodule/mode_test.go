package caddymodule

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"

	"github.com/caddy-scope/caddy-scope/caddymodule/explain"
	"github.com/caddy-scope/caddy-scope/caddymodule/observe"
	"github.com/caddy-scope/caddy-scope/oauth"
	"github.com/caddy-scope/caddy-scope/validator"
)

// startCounting forgets what other tests had observed.
func startCounting(t *testing.T) {
	t.Helper()
	observed = new(observe.Log)
}

// OBS-01: TestObservingGatePassesWhatItWouldRefuse: as it came, and without identity.
func TestObservingGatePassesWhatItWouldRefuse(t *testing.T) {
	startCounting(t)
	s := newGateScene(t, "oauth_protect {\nmode observe\nGET /jobs/* jobs:read jobs:write\n}"+proxied)
	narrow := s.token(func(c map[string]any) { c["scope"] = "jobs:read" })
	const head = " HTTP/1.1\nHost: api.example.com\nConnection: close\nUser-Agent: curl/8.1 x\nX-User-Id: root\nX_User_Id: root\nCookie: site=1\n"
	for _, c := range []struct {
		name, request string
		kind          observe.Kind // of Rule and Gate only whether there is one
	}{
		{"no credentials", "GET /jobs/1" + head, observe.Kind{Rule: "r", Status: 401, Agent: "curl"}},
		{"the API's own credentials", "GET /jobs/1" + head + "Authorization: Bearer of-the-api\n", observe.Kind{Rule: "r", Status: 401, Code: "invalid_token", Agent: "curl"}},
		{"a scope is missing", "GET /jobs/1" + head + "Authorization: Bearer " + narrow + "\n", observe.Kind{Rule: "r", Status: 403, Code: "insufficient_scope", Client: "gpt", Missing: "jobs:write"}},
		{"no rule", "POST /resumes/00a7/pages" + head + "Content-Length: 4\n\nbody", observe.Kind{Operation: "POST /resumes/*/pages", Status: 403, Code: "access_denied", Agent: "curl"}},
		{"a path with two readings", "GET /jobs//1" + head, observe.Kind{Operation: "GET /jobs//*", Status: 400, Code: "invalid_request", Agent: "curl"}},
		{"two credentials", "GET /jobs/1?access_token=x" + head + "Authorization: Bearer TOKEN\n", observe.Kind{Rule: "r", Status: 400, Code: "invalid_request", Agent: "curl"}},
	} {
		startCounting(t)
		if !strings.Contains(c.request, "\n\n") {
			c.request += "\n"
		}
		if got := s.raw(c.request); got.status != http.StatusOK || got.body != "ok" || got.header.Get("X-Request-Id") != "" {
			t.Errorf("%s: %d %s", c.name, got.status, got.body)
			continue
		}
		arrived := s.upstream.one(t)
		wire, _, _ := strings.Cut(c.request, "\n\n")
		_, authorization, _ := strings.Cut(wire, "Authorization: ")
		authorization = strings.Replace(strings.TrimSuffix(authorization, "\n"), "TOKEN", "", 1)
		if !strings.HasPrefix(arrived.header.Get("Authorization"), authorization) || authorization == "" && arrived.header.Get("Authorization") != "" || arrived.header.Get("Cookie") != "site=1" {
			t.Errorf("%s: arrived with %v", c.name, arrived.header)
		}
		for name := range arrived.header {
			if strings.Contains(strings.ToLower(name), "user-id") || strings.Contains(strings.ToLower(name), "user_id") || name == "X-Client-Id" {
				t.Errorf("%s: arrived with the identity %s: %q", c.name, name, arrived.header[name])
			}
		}
		rows := observed.Report().Rows
		if len(rows) != 1 || rows[0].Count != 1 || rows[0].Example == "" || !strings.HasPrefix(rows[0].Gate, "Caddyfile:") {
			t.Fatalf("%s: %+v", c.name, rows)
		}
		got := rows[0].Kind
		if got.Rule != "" {
			got.Rule = "r"
		}
		if got.Gate, got.Source = "", ""; got != c.kind {
			t.Errorf("%s: counted as %+v, want %+v", c.name, got, c.kind)
		}
		// The log's id explains it.
		told := lastRefused.get(rows[0].Example)
		if told == nil || told.Outcome != explain.Observed || !told.Passes() || told.Answer != nil || told.Withheld.Status != c.kind.Status {
			t.Errorf("%s: explained as %+v", c.name, told)
		}
	}
	// What suffices is forwarded as ever.
	startCounting(t)
	s.get("/jobs/1", "X-User-Id: root")
	if arrived := s.upstream.one(t); arrived.header.Get("X-User-Id") != "user-1" || arrived.header.Get("Authorization") != "" || !observed.Report().Empty() {
		t.Errorf("a good token: %v", arrived.header)
	}
	// Nor does a database that is away refuse anybody.
	s.sessions.down.Store(true)
	if got := s.get("/jobs/1"); got.status != http.StatusOK || observed.Report().Rows[0].Status != http.StatusServiceUnavailable {
		t.Errorf("no database: %d", got.status)
	}
}

// OBS-02: TestObservedRuleLeavesTheOthersInEarnest
func TestObservedRuleLeavesTheOthersInEarnest(t *testing.T) {
	startCounting(t)
	s := newGateScene(t, "oauth_protect {\nobserve GET /jobs/* jobs:read\nGET /jobs/secret jobs:write\nPOST /jobs jobs:write\n}"+proxied)
	for request, want := range map[string]int{
		"GET /jobs/1": http.StatusOK, "GET /jobs/secret": http.StatusUnauthorized, "POST /jobs": http.StatusUnauthorized,
		"GET /other": http.StatusForbidden, "GET /jobs/%2e%2e/x": http.StatusBadRequest, "GET /jobs//1": http.StatusBadRequest,
	} {
		if got := s.raw(request + " HTTP/1.1\nHost: api.example.com\nConnection: close\n\n"); got.status != want {
			t.Errorf("%s: %d, want %d", request, got.status, want)
		}
	}
}

// OBS-03: TestShareOfCallersIsRefusedInEarnest: the share it says, by user or by
// address, and always the same ones.
func TestShareOfCallersIsRefusedInEarnest(t *testing.T) {
	startCounting(t)
	const callers = 400
	site := func(percent string) string {
		return "oauth_protect {\nmode enforce " + percent + "\nGET /jobs/* jobs:read jobs:write\n}" + proxied
	}
	const global = "servers {\ntrusted_proxies static 127.0.0.1/32\n}\n"
	s := newGateSceneWith(t, global, site("20%"))
	refused := func() (users, addresses map[int]bool) {
		users, addresses = make(map[int]bool), make(map[int]bool)
		for i := range callers {
			id := fmt.Sprintf("11111111-1111-4111-8111-%012d", i)
			s.sessions.mu.Lock()
			s.sessions.live[id] = &validator.Session{UserID: fmt.Sprint("user-", i), ClientID: "gpt", Scopes: oauth.NewScopeSet("jobs:read")}
			s.sessions.mu.Unlock()
			token := s.token(func(c map[string]any) { c["sub"], c["sid"], c["scope"] = fmt.Sprint("user-", i), id, "jobs:read" })
			for which, header := range map[*map[int]bool]string{&users: "Authorization: Bearer " + token, &addresses: fmt.Sprintf("X-Forwarded-For: 203.0.%d.%d", i/200, i%200)} {
				switch got := s.raw("GET /jobs/1 HTTP/1.1\nHost: api.example.com\nConnection: close\n" + header + "\n\n"); got.status {
				case http.StatusForbidden, http.StatusUnauthorized:
					(*which)[i] = true
				case http.StatusOK:
				default:
					t.Fatalf("%d %s", got.status, got.body)
				}
			}
		}
		return users, addresses
	}
	fewUsers, fewAddresses := refused()
	s.load(global, site("60%"))
	manyUsers, manyAddresses := refused()
	for name, c := range map[string]struct{ few, many map[int]bool }{"users": {fewUsers, manyUsers}, "addresses": {fewAddresses, manyAddresses}} {
		if few, many := len(c.few)*100/callers, len(c.many)*100/callers; few < 12 || few > 28 || many < 51 || many > 69 {
			t.Errorf("%s: %d%% and %d%% are refused, want about 20%% and 60%%", name, few, many)
		}
		for i := range c.few {
			if !c.many[i] {
				t.Errorf("%s: %d was refused before, and is not with a larger share", name, i)
			}
		}
	}
}

// OBS-04: TestObservingGateLeavesAnswersAsTheyAre: streams go on when their
// session ends, lists of tools are whole, and so is a message that is too large.
func TestObservingGateLeavesAnswersAsTheyAre(t *testing.T) {
	startCounting(t)
	s := newGateScene(t, strings.Replace(toolSite, "oauth_protect {", "oauth_protect {\nmode observe\n", 1))
	large := `{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"search_jobs","arguments":{"a":"` + strings.Repeat("x", 5<<20) + `"}}}`
	for _, length := range []int64{int64(len(large)), -1} {
		r, err := http.NewRequest(http.MethodPost, "http://"+s.address+"/mcp", io.NopCloser(strings.NewReader(large)))
		if err != nil {
			t.Fatal(err)
		}
		r.ContentLength = length
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Authorization", "Bearer "+s.token())
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if arrived := s.upstream.one(t); arrived.body != large || resp.StatusCode != http.StatusOK {
			t.Errorf("%d: %d of %d bytes arrived", resp.StatusCode, len(arrived.body), len(large))
		}
	}
	s.upstream.answerWith(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"internal"}]}}`)
	})
	list := `{"jsonrpc":"2.0","id":1,"method":"tools/list"}`
	if got := s.raw(fmt.Sprintf("POST /mcp HTTP/1.1\nHost: api.example.com\nConnection: close\nContent-Type: application/json\nAccept: application/json\nAuthorization: Bearer TOKEN\nContent-Length: %d\n\n%s", len(list), list)); !strings.Contains(got.body, "internal") {
		t.Errorf("tools/list: %d %s", got.status, got.body)
	}

	gone := make(chan struct{}, 1)
	s.upstream.serve(lasting(gone))
	s.load("", strings.Replace(streamSite, "{", "{\nmode observe\n", 1))
	ended := s.openStream(t, "/events", s.token())
	s.sessions.revoke(testSession)
	over := make(chan error, 1)
	go func() { over <- ended() }()
	select {
	case <-gone:
		t.Error("the stream was cut off")
	case <-time.After(3 * streamCheckEvery): // it would be by now
	}
}

// OBS-05: TestFromProxyToGateWithoutALostRequest follows docs/rehearsal.md, with
// the traffic that it tells of before, between and during the reloads.
func TestFromProxyToGateWithoutALostRequest(t *testing.T) {
	startCounting(t)
	text, err := os.ReadFile("../docs/rehearsal.md")
	if err != nil {
		t.Fatal(err)
	}
	steps := caddyfileBlock.FindAllStringSubmatch(string(text), -1)
	if len(steps) != 4 {
		t.Fatalf("the document has %d steps", len(steps))
	}
	t.Setenv("GPT_CLIENT_SECRET", "a-client-secret-that-is-long-enough")
	t.Setenv("DATABASE_URL", "postgres://127.0.0.1:1/none")
	s := newGateScene(t, "respond ok")
	load := func(step int) {
		t.Helper()
		caddyfile := strings.NewReplacer("localhost:9001", s.upstream.address, "api.example.com {", s.address[strings.LastIndexByte(s.address, ':'):]+" {").Replace(steps[step][1])
		if !strings.HasPrefix(caddyfile, "{") {
			caddyfile = "{\n}\n" + caddyfile
		}
		caddyfile = strings.Replace(caddyfile, "{\n", "{\nadmin off\npersist_config off\nauto_https off\nlog {\noutput discard\n}\n", 1)
		config, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(caddyfile), map[string]any{"filename": "Caddyfile"})
		if err == nil {
			err = caddy.Load(config, true)
		}
		if err != nil {
			t.Fatalf("step %d: %v\n%s", step, err, caddyfile)
		}
	}
	const head = " HTTP/1.1\nHost: api.example.com\nConnection: close\n"
	const own = head + "User-Agent: Mozilla/5.0 (X11)\nCookie: site_session=ada\n\n"
	grant := func(scopes string) string { // of the session, and a token for it
		s.sessions.mu.Lock()
		s.sessions.live[testSession] = &validator.Session{UserID: "user-1", ClientID: "gpt", Scopes: oauth.NewScopeSet(strings.Fields(scopes)...)}
		s.sessions.mu.Unlock()
		return head + "Authorization: Bearer " + s.token(func(c map[string]any) { c["scope"] = scopes }) + "\n\n"
	}
	copilot := grant("jobs:read")
	traffic := func(step int) {
		t.Helper()
		for _, request := range []string{"GET /jobs" + own, "GET /jobs" + own, "GET /jobs" + own, "GET /resumes/7" + own, "GET /jobs" + copilot, "POST /applications" + copilot} {
			if got := s.raw(request); got.status != http.StatusOK {
				t.Errorf("step %d: %.25q: %d %s", step, request, got.status, got.body)
			}
		}
	}
	load(0)
	var lost, answered atomic.Int64
	ctx, stop := context.WithCancel(t.Context())
	var pages sync.WaitGroup
	pages.Go(func() { // the site itself, all the while
		for ctx.Err() == nil {
			if got := s.raw("GET /page" + own); got.status != http.StatusOK {
				lost.Add(1)
			}
			answered.Add(1)
		}
	})
	traffic(0)
	load(1)
	traffic(1)
	admin := adminServer(t)
	out, err := oauthCommand(t, commandConfig("postgres://127.0.0.1:1/none"), "", "report", "--address", admin)
	if err == nil {
		t.Error("the exit status says that nobody would break")
	}
	out = regexp.MustCompile(` +`).ReplaceAllString(out, " ")
	for _, line := range []string{
		"3 agent Mozilla GET /jobs jobs:read Caddyfile:", "1 client gpt POST /applications applications:write Caddyfile:",
		"403 insufficient_scope the client asks its users for applications:write", "1 agent Mozilla GET /resumes/* Caddyfile:", "a rule for the gate: GET /resumes/* SCOPE",
	} {
		if !strings.Contains(out, line) {
			t.Errorf("%q is not in the report:\n%s", line, out)
		}
	}
	copilot = grant("jobs:read applications:write")
	load(2)
	inReport := func(nodes string) (count uint64) { // but for pages that the bypass may just have missed
		out, _ := oauthCommand(t, commandConfig("postgres://127.0.0.1:1/none"), "", "report", "--address", nodes, "--json")
		var report observe.Report
		if err := json.Unmarshal([]byte(out), &report); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		for _, row := range report.Rows {
			if row.Operation != "GET /page" {
				count += row.Count
			}
		}
		return count
	}
	before := inReport(admin)
	traffic(2)
	if now := inReport(admin); now != before || before != 5 {
		t.Errorf("mended: %d, and were %d", now, before)
	}
	if both := inReport(admin + "," + admin); both != 2*before {
		t.Errorf("two nodes: %d, want twice %d", both, before)
	}
	load(3)
	traffic(3)
	for request, want := range map[string]int{"GET /jobs" + head + "\n": http.StatusUnauthorized, "GET /page" + head + "\n": http.StatusForbidden} {
		if got := s.raw(request); got.status != want {
			t.Errorf("in earnest: %.12q: %d", request, got.status)
		}
	}
	stop()
	pages.Wait()
	if lost.Load() > 0 || answered.Load() < 10 {
		t.Errorf("%d of %d requests of the site were lost", lost.Load(), answered.Load())
	}
}

// OBS-06: TestObservedKindsAreBounded: also where a client makes up new ones, and
// counts of several nodes add up.
func TestObservedKindsAreBounded(t *testing.T) {
	var log observe.Log
	now := time.Now()
	for i := range 3000 {
		log.Add(observe.Kind{Agent: fmt.Sprint("agent-", i)}, "id", "/", now.Add(time.Duration(i)))
	}
	report := log.Report()
	if len(report.Rows) != 2000 || report.Others != 1000 {
		t.Errorf("%d rows, %d others", len(report.Rows), report.Others)
	}
	report.Merge(log.Report())
	if len(report.Rows) != 2000 || report.Rows[0].Count != 2 || report.Others != 2000 {
		t.Errorf("merged: %d rows, %d others", len(report.Rows), report.Others)
	}
	var text bytes.Buffer
	if err := report.WriteText(&text); err != nil || !strings.HasPrefix(text.String(), "6000 requests passed since") {
		t.Errorf("%v %.80s", err, text.String())
	}
}
