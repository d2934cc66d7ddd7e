package caddymodule

import (
	"bytes"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

type field struct{ name, value string }

// http2 sends one request frame by frame, its fields as they are and in their
// order. It returns 0 when the stream or the connection was reset.
func (s *gateScene) http2(fields []field, body string, trailers ...field) (status int) {
	s.t.Helper()
	conn := s.dial()
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		s.t.Fatal(err)
	}
	framer := http2.NewFramer(conn, conn)
	framer.AllowIllegalWrites, framer.ReadMetaHeaders = true, hpack.NewDecoder(4096, nil)
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	write := func(fields []field, last bool) error {
		block.Reset()
		for _, f := range fields {
			if err := encoder.WriteField(hpack.HeaderField{Name: f.name, Value: f.value}); err != nil {
				return err
			}
		}
		return framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: last})
	}
	if _, err := conn.Write([]byte(http2.ClientPreface)); err != nil {
		return 0
	}
	_ = framer.WriteSettings()
	_ = write(fields, body == "" && len(trailers) == 0)
	if body != "" {
		_ = framer.WriteData(1, len(trailers) == 0, []byte(body))
	}
	if len(trailers) > 0 {
		_ = write(trailers, true)
	}
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			return 0
		}
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				_ = framer.WriteSettingsAck()
			}
		case *http2.MetaHeadersFrame:
			status, _ = strconv.Atoi(frame.PseudoValue("status"))
			return status
		case *http2.RSTStreamFrame, *http2.GoAwayFrame:
			return 0
		}
	}
}

func newHTTP2Scene(t *testing.T) *gateScene {
	return newGateSceneWith(t, "servers {\n\t\tprotocols h1 h2c\n\t\texpected_underscore_headers X_*\n\t\texpected_dot_headers X.*\n\t}", standardSite)
}

func (s *gateScene) http2Request(method, path string, more ...field) []field {
	return append([]field{
		{":method", method}, {":scheme", "http"}, {":authority", "api.example.com"}, {":path", path}, {"authorization", "Bearer " + s.token()},
	}, more...)
}

// TestHTTP2RequestsWithTwoReadingsNeverReachUpstream: the rows of SECURITY-CASES
// M2 that only a binary protocol can spell.
func TestHTTP2RequestsWithTwoReadingsNeverReachUpstream(t *testing.T) {
	s := newHTTP2Scene(t)
	if status := s.http2(s.http2Request("GET", "/jobs"), ""); status != 200 || len(s.upstream.take()) != 1 {
		t.Fatalf("an ordinary request: %d", status)
	}
	requests := map[string][]field{
		"two Authorization":  s.http2Request("GET", "/jobs", field{"authorization", "Bearer x"}),
		"authority, no path": {{":method", "CONNECT"}, {":authority", "b.test:443"}},
		"extended CONNECT":   s.http2Request("CONNECT", "/jobs", field{":protocol", "websocket"}),
		"two paths":          append([]field{{":path", "/open"}}, s.http2Request("GET", "/admin")...),
		"two methods":        append([]field{{":method", "GET"}}, s.http2Request("DELETE", "/jobs")...),
		"userinfo":           {{":method", "GET"}, {":scheme", "http"}, {":authority", "user@api.example.com"}, {":path", "/open"}},
		"other host":         {{":method", "GET"}, {":scheme", "http"}, {":authority", ""}, {":path", "/open"}},
		"upper-case name":    s.http2Request("GET", "/jobs", field{"X-User-Id", "admin"}),
		"line break":         s.http2Request("GET", "/jobs", field{"x-a", "b\r\nX-User-Id: admin"}),
		"NUL":                s.http2Request("GET", "/jobs", field{"x-a", "b\x00"}),
		"connection":         s.http2Request("GET", "/jobs", field{"connection", "x-user-id"}),
		"transfer-encoding":  s.http2Request("POST", "/jobs", field{"transfer-encoding", "chunked"}),
		"upgrade":            s.http2Request("GET", "/jobs", field{"upgrade", "h2c"}),
	}
	for _, method := range []string{"CONNECT", "TRACE", "TRACK", "PRI", "FOO", "get", "GeT", "GET /open", ""} {
		requests["method "+method] = s.http2Request(method, "/jobs")
	}
	for _, path := range append([]string{"*", "jobs", "", "http://a/jobs", "/jobs\r\nX: y", "/jobs 1"}, hostileTargets...) {
		requests["path "+path] = s.http2Request("GET", path)
	}
	for name, fields := range requests {
		if status := s.http2(fields, ""); status != 0 && (status < 400 || status >= 500) {
			t.Errorf("%s: status %d", name, status)
		}
		if got := s.upstream.take(); len(got) != 0 {
			t.Errorf("%s reached the upstream as %s %s", name, got[0].method, got[0].uri)
		}
	}
}

// TestHTTP2ClientCannotSayWhoItIs, in a header or a trailer. H-02, H-04.
func TestHTTP2ClientCannotSayWhoItIs(t *testing.T) {
	s := newHTTP2Scene(t)
	for _, name := range []string{"x-user-id", "x_user_id", "x.user.id", "x-user_id", "x-scopes", "x-session-id", "x-client-id"} {
		for _, fields := range [][]field{
			s.http2Request("POST", "/jobs", field{name, "admin"}),
			s.http2Request("POST", "/jobs", field{"trailer", name}),
			s.http2Request("POST", "/jobs", field{"te", "trailers"}),
		} {
			if status := s.http2(fields, "hi", field{name, "admin"}); status != 200 {
				t.Errorf("%s: status %d", name, status)
				continue
			}
			r := s.upstream.one(t)
			for where, header := range map[string]map[string][]string{"header": r.header, "trailer": r.trailer} {
				for name, values := range header {
					if strings.Contains(strings.Join(values, ","), "admin") {
						t.Errorf("%s: upstream received %s %s: %v", name, where, name, values)
					}
				}
			}
			if r.header.Get("X-User-Id") != "user-1" {
				t.Errorf("%s: X-User-Id is %q", name, r.header.Get("X-User-Id"))
			}
		}
	}
}

// TestAbusedConnectionsLeaveOthersAlone: streams that are reset at once with bad
// tokens, an endless header, and heads that never end..
func TestAbusedConnectionsLeaveOthersAlone(t *testing.T) {
	s := newHTTP2Scene(t)
	for range 100 { // heads and bodies that never end
		conn := s.dial()
		defer conn.Close()
		_, _ = conn.Write([]byte("POST /jobs HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\nX-Slow: "))
	}
	conn := s.dial()
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	_, _ = conn.Write([]byte(http2.ClientPreface))
	framer := http2.NewFramer(conn, conn)
	_ = framer.WriteSettings()
	var block bytes.Buffer
	encoder := hpack.NewEncoder(&block)
	for i := range 1000 { // until the server has enough of it
		block.Reset()
		for _, f := range []field{{":method", "GET"}, {":scheme", "http"}, {":authority", "a"}, {":path", "/jobs"}, {"authorization", "Bearer a.b.c"}} {
			_ = encoder.WriteField(hpack.HeaderField{Name: f.name, Value: f.value})
		}
		id := uint32(2*i + 1)
		if framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: true}) != nil || framer.WriteRSTStream(id, http2.ErrCodeCancel) != nil {
			break
		}
	}
	_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 9001, BlockFragment: block.Bytes()})
	for range 1000 { // CONTINUATION without end
		if framer.WriteContinuation(9001, false, bytes.Repeat([]byte{0x40, 1, 'a', 1, 'b'}, 1000)) != nil {
			break
		}
	}
	s.upstream.take()
	start := time.Now()
	for range 20 {
		if got := s.get("/jobs"); got.status != 200 {
			t.Fatalf("an ordinary request: %+v", got)
		}
	}
	if took := time.Since(start); took > 4*time.Second {
		t.Errorf("20 ordinary requests took %s", took)
	}
}

// TestHTTP2BodyOfAnotherLengthIsNoSecondRequest. Q-01.
func TestHTTP2BodyOfAnotherLengthIsNoSecondRequest(t *testing.T) {
	s := newHTTP2Scene(t)
	const body = "0\r\n\r\nGET /admin HTTP/1.1\r\nHost: a\r\n\r\n"
	for _, length := range []string{"0", "3", "1000", "-1", "+3"} {
		s.http2(s.http2Request("POST", "/jobs", field{"content-length", length}), body)
		for _, got := range s.upstream.take() {
			if got.uri != "/jobs" {
				t.Errorf("content-length %s: upstream received %s %s", length, got.method, got.uri)
			}
		}
	}
}
