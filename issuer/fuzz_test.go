package issuer

import (
	"encoding/base64"
	"net"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// T-34: each parser beside a second, naive one.

func FuzzFormIsReadAsTheQueryItIs(f *testing.F) {
	for _, seed := range []string{"a=b", "a=b&a=c", "resource=a&resource=b", "a=&a=", "a", "%zz=1", "a=b;c=d", "", "a=%00", "&&&", "=x"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, body string) {
		r := httptest.NewRequest("POST", "/oauth/token", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		p, resources, err := readForm(httptest.NewRecorder(), r)
		if err != nil {
			return
		}
		seen := make(map[string]int)
		for pair := range strings.SplitSeq(body, "&") {
			if pair == "" {
				continue
			}
			name, value, _ := strings.Cut(pair, "=")
			name, errName := url.QueryUnescape(name)
			value, errValue := url.QueryUnescape(value)
			if errName != nil || errValue != nil || strings.Contains(pair, ";") {
				t.Fatalf("%q was read", body)
			}
			seen[name]++
			if name != "resource" && (seen[name] > 1 || p[name] != value) {
				t.Fatalf("%q: %s is %q", body, name, p[name])
			}
			if name == "resource" && value != "" {
				if len(resources) == 0 || resources[0] != value {
					t.Fatalf("%q: resources %q", body, resources)
				}
				resources = resources[1:]
			}
		}
		if len(resources) > 0 {
			t.Fatalf("%q: %q came from nowhere", body, resources)
		}
	})
}

func FuzzBasicCredentials(f *testing.F) {
	for _, seed := range []string{"a:b", ":b", "a:", "a%3Ab:c", "a+b:c+d", "a:b:c", "%zz:x", "\x00:\xff"} {
		f.Add("Basic " + base64.StdEncoding.EncodeToString([]byte(seed)))
	}
	f.Add("basic")
	f.Add("Basic  eA==")
	f.Fuzz(func(t *testing.T, field string) {
		c, ok := parseBasic(field)
		r := httptest.NewRequest("POST", "/", nil)
		r.Header["Authorization"] = []string{field}
		id, secret, standard := r.BasicAuth()
		if ok && (!standard || c.alternativeID != id || c.alternative != secret || c.id == "") {
			t.Fatalf("%q: %+v, net/http reads %q %q", field, c, id, secret)
		}
		if !ok && standard && id != "" {
			if decoded, err := url.QueryUnescape(id); err != nil || decoded != "" {
				t.Fatalf("%q is refused; net/http reads %q", field, id)
			}
		}
	})
}

func FuzzVerifierIsABNF(f *testing.F) {
	abnf := regexp.MustCompile(`\A[A-Za-z0-9\-._~]{43,128}\z`)
	for _, seed := range []string{strings.Repeat("a", 42), strings.Repeat("a", 43), strings.Repeat("~", 128), strings.Repeat("a", 129), strings.Repeat("a", 43) + "\n", "ä"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, v string) {
		if isVerifier(v) != abnf.MatchString(v) {
			t.Fatalf("%q", v)
		}
	})
}

// A matched redirect is the registered one, but for the port of loopback, also
// to a URL parser.
func FuzzRedirectMatches(f *testing.F) {
	for _, pair := range [][2]string{
		{"http://127.0.0.1/cb", "http://127.0.0.1:1/cb"}, {"http://[::1]:3/cb?x", "http://[::1]/cb?x"}, {"https://a/cb", "https://a:1/cb"}, {"http://localhost/", "http://localhost:1@evil/"},
		{"http://127.0.0.1", "http://127.0.0.1.evil"}, {"http://127.0.0.1/cb", "http://127.0.0.1:00001/cb"},
	} {
		f.Add(pair[0], pair[1])
	}
	f.Fuzz(func(t *testing.T, registered, requested string) {
		if CheckRedirectURI(registered) != nil {
			return
		}
		if !matchRedirectURI(registered, requested) {
			if registered == requested {
				t.Fatalf("%q does not match itself", registered)
			}
			return
		}
		if registered == requested {
			return
		}
		a, errA := url.Parse(registered)
		b, errB := url.Parse(requested)
		if errA != nil || errB != nil {
			t.Fatalf("%q matches %q: %v %v", requested, registered, errA, errB)
		}
		host := b.Hostname()
		if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			t.Fatalf("%q matches %q: not loopback", requested, registered)
		}
		if port := b.Port(); port != "" {
			if _, err := strconv.ParseUint(port, 10, 16); err != nil {
				t.Fatalf("%q matches %q: port", requested, registered)
			}
		}
		a.Host, b.Host = a.Hostname(), b.Hostname()
		if a.Scheme != "http" || a.String() != b.String() || b.User != nil {
			t.Fatalf("%q matches %q", requested, registered)
		}
	})
}
