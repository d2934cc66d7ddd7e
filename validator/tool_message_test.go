package validator_test

import (
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/caddy-scope/caddy-scope/validator"
	"github.com/caddy-scope/caddy-scope/validator/validatortest"
)

// MCP-03: what readers of JSON could differ on is refused, whatever it asks for;
// what honest clients send arrives as it was sent.
func TestMessagesWithTwoReadingsAreRefused(t *testing.T) {
	t.Parallel()
	s := newToolScene(t, validator.AccessAuthenticated)
	for _, body := range validatortest.HostileBodies("search_jobs", "submit_application") {
		t.Run(body.Name, func(t *testing.T) {
			t.Parallel()
			_, refusal := s.message(body.Text, "jobs:read")
			if refusal == nil || refusal.Status != 400 && refusal.Status != 403 {
				t.Errorf("%.200s: %v", body.Text, refusal)
			}
		})
	}
	for _, body := range validatortest.HonestBodies("search_jobs") {
		t.Run(body.Name, func(t *testing.T) {
			t.Parallel()
			r := post(body.Text)
			r.Header.Set("Authorization", "Bearer "+s.minter.Token(validatortest.Claims("jobs:read")))
			if _, refusal := s.decide(r); refusal != nil {
				t.Errorf("refused: %v", refusal)
			}
			if forwarded, err := io.ReadAll(r.Body); err != nil || string(forwarded) != body.Text {
				t.Errorf("forwarded %q %v", forwarded, err)
			}
		})
	}
}

// MCP-04: what says how to read a message is held to what is read.
func TestMessageHeaderMustFitTheMessage(t *testing.T) {
	t.Parallel()
	s := newToolScene(t, validator.AccessAuthenticated)
	encoded := func(name string) string { return "=?base64?" + base64.StdEncoding.EncodeToString([]byte(name)) + "?=" }
	resource := `{"jsonrpc":"2.0","id":1,"method":"resources/read","params":{"uri":"file:///é"}}`
	list := `{"jsonrpc":"2.0","id":1,"method":"tools/list"}`
	for _, c := range []struct {
		name, body string
		fields     []string
		status     int
	}{
		{"method and name", call("search_jobs"), []string{"Mcp-Method", "tools/call", "Mcp-Name", "search_jobs"}, 0},
		{"encoded name", call("search_jobs"), []string{"Mcp-Name", encoded("search_jobs")}, 0},
		{"encoded URI", resource, []string{"Mcp-Method", "resources/read", "Mcp-Name", encoded("file:///é")}, 0},
		{"parameters", call("search_jobs"), []string{"Mcp-Param-Region", "x"}, 0},
		{"other method", call("search_jobs"), []string{"Mcp-Method", "tools/list"}, 400},
		{"method in another case", call("search_jobs"), []string{"Mcp-Method", "Tools/Call"}, 400},
		{"encoded method", call("search_jobs"), []string{"Mcp-Method", encoded("tools/call")}, 400},
		{"other name", call("search_jobs"), []string{"Mcp-Name", "submit_application"}, 400},
		{"other name, encoded", call("search_jobs"), []string{"Mcp-Name", encoded("submit_application")}, 400},
		{"literal of an encoded name", call("search_jobs"), []string{"Mcp-Name", "=?BASE64?" + encoded("search_jobs")[9:]}, 400},
		{"no base64", call("search_jobs"), []string{"Mcp-Name", "=?base64?search_jobs?="}, 400},
		{"loose base64", call("search_jobs"), []string{"Mcp-Name", "=?base64?" + strings.TrimRight(base64.StdEncoding.EncodeToString([]byte("search_job")), "=") + "?="}, 400},
		{"empty name", call("search_jobs"), []string{"Mcp-Name", ""}, 400},
		{"other URI", resource, []string{"Mcp-Name", "file:///a"}, 400},
		{"a call in the header only", list, []string{"Mcp-Method", "tools/call", "Mcp-Name", "submit_application"}, 400},
		{"method twice", call("search_jobs"), []string{"Mcp-Method", "tools/call", "Mcp-Method", "tools/call"}, 400},
		{"name twice", call("search_jobs"), []string{"Mcp-Name", "search_jobs", "Mcp-Name", "submit_application"}, 400},
		{"about a batch", "[" + call("search_jobs") + "]", []string{"Mcp-Name", "search_jobs"}, 400},
		{"with an underscore", call("search_jobs"), []string{"Mcp_Name", "submit_application"}, 400},
		{"type with an underscore", call("search_jobs"), []string{"Content_Type", "application/x-yaml"}, 400},

		{"charset", call("search_jobs"), []string{"Content-Type", "application/json; charset=UTF-8"}, 0},
		{"identity", call("search_jobs"), []string{"Content-Encoding", "identity"}, 0},
		{"other charset", call("search_jobs"), []string{"Content-Type", "application/json; charset=utf-16"}, 415},
		{"other type", call("search_jobs"), []string{"Content-Type", "text/plain"}, 415},
		{"form", call("search_jobs"), []string{"Content-Type", "application/x-www-form-urlencoded"}, 415},
		{"patch", call("search_jobs"), []string{"Content-Type", "application/json-patch+json"}, 415},
		{"two types in one", call("search_jobs"), []string{"Content-Type", "application/json, text/plain"}, 415},
		{"no type", call("search_jobs"), []string{"Content-Type", ""}, 415},
		{"gzip", call("search_jobs"), []string{"Content-Encoding", "gzip"}, 415},
		{"two encodings", call("search_jobs"), []string{"Content-Encoding", "identity", "Content-Encoding", "br"}, 415},
		{"WebSocket", call("search_jobs"), []string{"Upgrade", "websocket"}, 400},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := post(c.body)
			for i := 0; i < len(c.fields); i += 2 {
				if c.fields[i] == "Content-Type" {
					r.Header.Del("Content-Type")
				}
				r.Header[c.fields[i]] = append(r.Header[c.fields[i]], c.fields[i+1])
			}
			r.Header.Set("Authorization", "Bearer "+s.minter.Token(validatortest.Claims("jobs:read")))
			_, refusal := s.decide(r)
			if c.status == 0 && refusal != nil || c.status != 0 && (refusal == nil || refusal.Status != c.status) {
				t.Errorf("got %v, want %d", refusal, c.status)
			}
		})
	}
	r := post(call("search_jobs"))
	r.Header["Content-Type"] = []string{"application/json", "application/json"}
	r.Header.Set("Authorization", "Bearer "+s.minter.Token(validatortest.Claims("jobs:read")))
	if _, refusal := s.decide(r); refusal == nil || refusal.Status != 415 {
		t.Errorf("two types: %v", refusal)
	}
}

// watchedBody says how much of it was read.
type watchedBody struct {
	io.Reader
	read int
}

func (b *watchedBody) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	b.read += n
	return n, err
}

func (b *watchedBody) Close() error { return nil }

// endless never ends.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

// MCP-05: a body is read within a bound, and for those who show a good token only.
func TestBodiesAreReadWithinABoundAndForGoodTokensOnly(t *testing.T) {
	t.Parallel()
	s := newToolScene(t, validator.AccessAuthenticated)
	send := func(body io.Reader, length int64, token string) (*watchedBody, *validator.Refusal) {
		watched := &watchedBody{Reader: body}
		r := post("")
		r.Body, r.ContentLength = watched, length
		if token != "" {
			r.Header.Set("Authorization", "Bearer "+token)
		}
		_, refusal := s.decide(r)
		return watched, refusal
	}
	good := s.minter.Token(validatortest.Claims("jobs:read"))
	for name, token := range map[string]string{
		"no token": "", "bad token": "a.b.c", "expired": s.minter.Token(validatortest.With(validatortest.Claims("jobs:read"), "exp", 1)),
	} {
		if body, refusal := send(endless{}, -1, token); body.read != 0 || refusal == nil || refusal.Status != 401 {
			t.Errorf("%s: read %d bytes, %v", name, body.read, refusal)
		}
	}
	if body, refusal := send(endless{}, -1, good); body.read > 5<<20 || refusal == nil || refusal.Status != 413 {
		t.Errorf("endless: read %d bytes, %v", body.read, refusal)
	}
	if body, refusal := send(endless{}, 1<<40, good); body.read != 0 || refusal == nil || refusal.Status != 413 {
		t.Errorf("announced: read %d bytes, %v", body.read, refusal)
	}
	if _, refusal := send(http.MaxBytesReader(nil, io.NopCloser(endless{}), 100), -1, good); refusal == nil || refusal.Status != 413 {
		t.Errorf("a bound of the server's own: %v", refusal)
	}
	if _, refusal := send(io.MultiReader(strings.NewReader(call("search_jobs")[:20]), errorReader{}), -1, good); refusal == nil || refusal.Status != 400 {
		t.Errorf("torn off: %v", refusal)
	}
	big := strings.Replace(call("search_jobs"), `"arguments":{}`, `"arguments":{"text":"`+strings.Repeat("x", 3<<20)+`"}`, 1)
	if _, refusal := send(strings.NewReader(big), -1, good); refusal != nil {
		t.Errorf("three MiB: %v", refusal)
	}
}

type errorReader struct{}

func (errorReader) Read([]byte) (int, error) { return 0, errors.New("connection reset") }
