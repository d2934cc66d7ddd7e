package doctor

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"time"
)

// patience is longer than any product has.
const patience = 30 * time.Second

// At reaches a running server at an address such as https://127.0.0.1:8443,
// under the names that requests have. Empty: where those names lead.
func At(address string) (http.RoundTripper, error) {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.ResponseHeaderTimeout = patience
	if address == "" {
		return transport, nil
	}
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, errors.New("it must be http://HOST:PORT or https://HOST:PORT")
	}
	transport.Proxy = nil
	return at{u, transport}, nil
}

// at sends every request to one address.
type at struct {
	address *url.URL
	by      *http.Transport
}

// RoundTrip implements http.RoundTripper.
func (a at) RoundTrip(r *http.Request) (*http.Response, error) {
	moved := r.Clone(r.Context())
	moved.Host = r.URL.Host
	moved.URL.Scheme, moved.URL.Host = a.address.Scheme, a.address.Host
	by := a.by.Clone()
	defer by.CloseIdleConnections()
	by.DisableKeepAlives = true
	if a.address.Scheme == "https" {
		by.TLSClientConfig.ServerName = r.URL.Hostname()
	}
	return by.RoundTrip(moved)
}

// Has reports whether some gate has the resource.
func (s *Stage) Has(resource string) bool {
	return slices.ContainsFunc(s.Resources, func(r Resource) bool { return r.Identifier == resource })
}
