// Package fetch gets small JSON documents from addresses that strangers chose:
// client metadata documents and the keys of clients. Whoever can name a URL
// that a server then opens can reach what only the server reaches (SSRF), so
// everything here is about what is not done: no address that is not public, no
// connection to any other address than the one that was looked at, no redirect,
// no proxy, no compression, no more than a few KiB, no more than a few seconds.
//
// draft-ietf-oauth-client-id-metadata-document section 6, RFC 6890.
package fetch

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"code.dny.dev/ssrf"
)

// ErrGone: the host answered, and what it answered is no document of ours. What
// was there before does not hold any more.
var ErrGone = errors.New("there is no document")

// Config makes a Fetcher.
type Config struct {
	// AllowedAddresses are networks that may be reached although they are not
	// public, such as 10.1.0.0/16 for a client of one's own. Default: none.
	AllowedAddresses []netip.Prefix
	// AllowedPorts beside 443. Default: none.
	AllowedPorts []uint16
	// Timeout bounds a whole fetch, from the look-up to the last byte. Default: 5s.
	Timeout time.Duration
	// RootCAs verify the servers. nil: those of the system.
	RootCAs *x509.CertPool
	// LookUp finds the addresses of a host. nil: the system's resolver.
	LookUp func(ctx context.Context, host string) ([]netip.Addr, error)
	// Dialing is told of each connection before it is made. Default: nobody.
	Dialing func(address netip.AddrPort)
	// Now is the clock that ages are counted by. nil: time.Now.
	Now func() time.Time
}

// Fetcher fetches documents. It keeps nothing and is safe for concurrent use.
type Fetcher struct {
	cfg   Config
	guard *ssrf.Guardian
}

const (
	fetchTimeout = 5 * time.Second
	maxHeader    = 16 << 10 // bytes of an answer's header
)

// New returns a fetcher.
func New(cfg Config) *Fetcher {
	if cfg.Timeout == 0 {
		cfg.Timeout = fetchTimeout
	}
	if cfg.LookUp == nil {
		cfg.LookUp = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	if cfg.Dialing == nil {
		cfg.Dialing = func(netip.AddrPort) {}
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	var v4, v6 []netip.Prefix
	for _, prefix := range cfg.AllowedAddresses {
		if prefix.Addr().Is4() {
			v4 = append(v4, prefix)
		} else {
			v6 = append(v6, prefix)
		}
	}
	return &Fetcher{cfg, ssrf.New(
		ssrf.WithPorts(append([]uint16{443}, cfg.AllowedPorts...)...),
		ssrf.WithAllowedV4Prefixes(v4...), ssrf.WithAllowedV6Prefixes(v6...),
	)}
}

// Document is what was fetched.
type Document struct {
	Body []byte
	// Fresh is how long the host lets it be kept: zero for not at all, below zero
	// where it says nothing. RFC 9111 section 4.2.1.
	Fresh time.Duration
}

// Get fetches the JSON document at address, which CheckURL must accept, of at
// most limit bytes. An error that is ErrGone is the host's last word (it
// answered 4xx, or with something else than a document); any other may be
// different the next time.
func (f *Fetcher) Get(ctx context.Context, address string, limit int) (Document, error) {
	u, err := CheckURL(address)
	if err != nil {
		return Document{}, fmt.Errorf("%w: the URL: %w", ErrGone, err)
	}
	ctx, cancel := context.WithTimeout(ctx, f.cfg.Timeout)
	defer cancel()
	// 1. Where that is, and that all of it may be reached.
	targets, err := f.resolve(ctx, u)
	if err != nil {
		return Document{}, err
	}
	// 2. Exactly there.
	client := &http.Client{
		Transport: f.transport(targets),
		// The document is the one at its own address. A redirect would also lead to
		// where nobody has looked.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return Document{}, fmt.Errorf("%w: the URL: %w", ErrGone, err)
	}
	request.Header.Set("Accept", "application/json")
	request.Header.Set("User-Agent", "caddy-scope")
	response, err := client.Do(request)
	if err != nil {
		return Document{}, fmt.Errorf("fetch: %w", err)
	}
	defer response.Body.Close()
	// 3. What came.
	return f.read(response, limit)
}

// resolve looks the host up, once, and returns where to connect. One address
// that may not be reached spoils the others: who mixes them is testing us.
func (f *Fetcher) resolve(ctx context.Context, u *url.URL) ([]netip.AddrPort, error) {
	port := uint16(443)
	if text := u.Port(); text != "" {
		n, err := strconv.ParseUint(text, 10, 16)
		if err != nil {
			return nil, fmt.Errorf("%w: port: %w", ErrGone, err)
		}
		port = uint16(n)
	}
	var addresses []netip.Addr
	if literal, err := netip.ParseAddr(u.Hostname()); err == nil {
		// A client is shown to users by its name. Addresses are for networks that
		// the owner named.
		if !slices.ContainsFunc(f.cfg.AllowedAddresses, func(p netip.Prefix) bool { return p.Contains(literal) }) {
			return nil, fmt.Errorf("%w: the host is an address and not a name", ErrGone)
		}
		addresses = []netip.Addr{literal}
	} else if addresses, err = f.cfg.LookUp(ctx, u.Hostname()); err != nil {
		return nil, fmt.Errorf("look up the host: %w", err)
	}
	var targets []netip.AddrPort
	for _, address := range addresses {
		target := netip.AddrPortFrom(address.Unmap(), port)
		if err := f.guard.SafeAddrPort(target); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrGone, err)
		}
		targets = append(targets, target)
	}
	if len(targets) == 0 {
		return nil, errors.New("the host has no address")
	}
	return targets, nil
}

// maxTargets of a host are tried.
const maxTargets = 4

// transport connects to the targets and nowhere else, whatever the name means by
// then.
func (f *Fetcher) transport(targets []netip.AddrPort) *http.Transport {
	var dialer net.Dialer
	dial := func(ctx context.Context, _, _ string) (conn net.Conn, err error) {
		for _, target := range targets[:min(len(targets), maxTargets)] {
			f.cfg.Dialing(target)
			if conn, err = dialer.DialContext(ctx, "tcp", target.String()); err == nil {
				return conn, nil
			}
		}
		return nil, err
	}
	return &http.Transport{
		Proxy:                  nil, // a proxy would do the look-up again
		DialContext:            dial,
		TLSClientConfig:        &tls.Config{RootCAs: f.cfg.RootCAs, MinVersion: tls.VersionTLS12},
		DisableKeepAlives:      true,
		DisableCompression:     true, // a few bytes would become gigabytes
		MaxResponseHeaderBytes: maxHeader,
	}
}

// read takes the one kind of answer that counts.
func (f *Fetcher) read(response *http.Response, limit int) (Document, error) {
	switch status := response.StatusCode; {
	case status >= 500 || status == http.StatusTooManyRequests:
		return Document{}, fmt.Errorf("the host answered %d", status)
	case status != http.StatusOK:
		return Document{}, fmt.Errorf("%w: the host answered %d", ErrGone, status)
	}
	if encoding := response.Header.Get("Content-Encoding"); encoding != "" && encoding != "identity" {
		return Document{}, fmt.Errorf("%w: it is compressed", ErrGone)
	}
	mediaType, _, err := mime.ParseMediaType(response.Header.Get("Content-Type"))
	if err != nil || mediaType != "application/json" && !(strings.HasPrefix(mediaType, "application/") && strings.HasSuffix(mediaType, "+json")) {
		return Document{}, fmt.Errorf("%w: its media type is not JSON", ErrGone)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, int64(limit)+1))
	switch {
	case err != nil:
		return Document{}, fmt.Errorf("read the document: %w", err)
	case len(body) > limit:
		return Document{}, fmt.Errorf("%w: it is longer than %d bytes", ErrGone, limit)
	}
	return Document{body, freshness(response.Header, f.cfg.Now())}, nil
}
