package validator

import (
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/caddy-scope/caddy-scope/oauth"
)

// IdentityHeaders names the headers that carry the caller's identity to the
// upstream. An empty field means its default.
type IdentityHeaders struct {
	User    string // default X-User-Id
	Client  string // default X-Client-Id
	Session string // default X-Session-Id
	Scopes  string // default X-Scopes
	// Claims of the user that are passed on as well. nil: none.
	Claims []ClaimHeader
	// Token carries the identity token, which the gate sets itself. Empty: there is
	// none.
	Token string
}

// ClaimHeader is a header with a claim of the user: its values, with commas
// between.
type ClaimHeader struct{ Claim, Header string }

// HeaderPolicy cleans requests of what a caller must not say to the upstream,
// and says it instead. Safe for concurrent use.
type HeaderPolicy struct {
	names    IdentityHeaders
	reserved [64][]string // folded names by length: most headers stop there
}

// overrides are headers by which some upstreams serve another method or path
// than the request names, and so than the gate decided on.
var overrides = []string{
	"X-HTTP-Method", "X-HTTP-Method-Override", "X-Method-Override",
	"X-Original-URL", "X-Original-URI", "X-Rewrite-URL", "X-Envoy-Original-Path",
}

// unfit are headers that mean something else to whoever reads the request on its
// way: they say where it ends, what becomes of the connection, whose it is, what is in
// it, or where it came from. One of them with an identity in it breaks the request, or
// has it read as another.
var unfit = []string{
	"Authorization", "Proxy-Authorization", "Proxy-Authenticate", "Cookie", "DPoP",
	"Host", "Connection", "Proxy-Connection", "Keep-Alive", "Transfer-Encoding", "TE", "Trailer", "Upgrade", "HTTP2-Settings",
	"Content-Length", "Content-Type", "Content-Encoding", "Content-Range", "Range", "Expect", "Max-Forwards",
	"Accept", "Accept-Encoding", "Accept-Language", "If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since", "If-Range",
	"Origin", "Referer", "User-Agent", "Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP", "Via",
	"Sec-WebSocket-Key", "Sec-WebSocket-Version", "Sec-WebSocket-Protocol", "Sec-WebSocket-Extensions", "Sec-WebSocket-Accept",
}

// NewHeaderPolicy fills the defaults of names. Each must be a field name of
// RFC 9110 section 5.1 of at most 63 bytes, none that means something else
// (Content-Length, Authorization, X-Original-URL), and no two may fold together;
// the error says which is wrong.
func NewHeaderPolicy(names IdentityHeaders) (*HeaderPolicy, error) {
	p := &HeaderPolicy{}
	for _, f := range []struct {
		name, fallback string
		into           *string
	}{
		{names.User, "X-User-Id", &p.names.User},
		{names.Client, "X-Client-Id", &p.names.Client},
		{names.Session, "X-Session-Id", &p.names.Session},
		{names.Scopes, "X-Scopes", &p.names.Scopes},
	} {
		name := f.name
		if name == "" {
			name = f.fallback
		}
		if err := p.take(name); err != nil {
			return nil, err
		}
		*f.into = textproto.CanonicalMIMEHeaderKey(name)
	}
	for _, c := range names.Claims {
		if c.Claim == "" || slices.ContainsFunc(p.names.Claims, func(other ClaimHeader) bool { return other.Claim == c.Claim }) {
			return nil, headerNameError{c.Header, "carries the claim " + strconv.Quote(c.Claim) + ", which is no name or has a header already"}
		}
		if err := p.take(c.Header); err != nil {
			return nil, err
		}
		p.names.Claims = append(p.names.Claims, ClaimHeader{c.Claim, textproto.CanonicalMIMEHeaderKey(c.Header)})
	}
	if names.Token != "" {
		if err := p.take(names.Token); err != nil {
			return nil, err
		}
		p.names.Token = textproto.CanonicalMIMEHeaderKey(names.Token)
	}
	for _, name := range overrides {
		p.reserve(name)
	}
	return p, nil
}

// take makes the name ours.
func (p *HeaderPolicy) take(name string) error {
	if !httpguts.ValidHeaderFieldName(name) || len(name) >= len(p.reserved) {
		return headerNameError{name, "is not a header name"}
	}
	if p.isReserved(name) {
		return headerNameError{name, "is used twice, or differs from another only in case, _ and -"}
	}
	if slices.ContainsFunc(slices.Concat(unfit, overrides), func(other string) bool { return fold(name) == fold(other) }) {
		return headerNameError{name, "cannot carry an identity"}
	}
	p.reserve(name)
	return nil
}

type headerNameError struct{ name, problem string }

func (e headerNameError) Error() string { return "identity header " + e.name + " " + e.problem }

func (p *HeaderPolicy) reserve(name string) {
	p.reserved[len(name)] = append(p.reserved[len(name)], fold(name))
}

// fold maps the spellings that CGI-style upstreams cannot tell apart to one:
// case, and `_` and `.` for `-`.
func fold(name string) string {
	folded := []byte(name)
	for i, c := range folded {
		folded[i] = foldByte(c)
	}
	return string(folded)
}

func foldByte(c byte) byte {
	switch {
	case c == '_' || c == '.':
		return '-'
	case c >= 'A' && c <= 'Z':
		return c + 'a' - 'A'
	}
	return c
}

// isReserved reports whether the upstream could take name for one of ours.
func (p *HeaderPolicy) isReserved(name string) bool {
	if len(name) >= len(p.reserved) {
		return false
	}
	for _, reserved := range p.reserved[len(name)] {
		if foldsTo(name, reserved) {
			return true
		}
	}
	return false
}

// foldsTo reports whether name folds to folded, which has its length.
func foldsTo(name, folded string) bool {
	for i := range len(name) {
		if foldByte(name[i]) != folded[i] {
			return false
		}
	}
	return true
}

// Strip removes every spelling of an identity header and of an override from
// header and trailers, and keeps the request's own Connection field from
// naming fields to delete: reverse proxies honour it after this gate, so that
// `Connection: X-User-Id` would make the upstream see no user at all. It is
// called on every request, public and bypassed ones too.
func (p *HeaderPolicy) Strip(r *http.Request) {
	for name := range r.Header {
		if p.isReserved(name) {
			delete(r.Header, name)
		}
	}
	for name := range r.Trailer {
		if p.isReserved(name) {
			delete(r.Trailer, name)
		}
	}
	if _, ok := r.Header["Trailer"]; ok {
		p.stripAnnounced(r.Header)
	}
	if fields, ok := r.Header["Connection"]; ok {
		keepHopOptions(r.Header, fields)
	}
}

// stripAnnounced drops our names from a Trailer field that the server left in
// the header.
func (p *HeaderPolicy) stripAnnounced(header http.Header) {
	var kept []string
	for _, field := range header["Trailer"] {
		for name := range strings.SplitSeq(field, ",") {
			if name = strings.TrimSpace(name); name != "" && !p.isReserved(name) {
				kept = append(kept, name)
			}
		}
	}
	if len(kept) == 0 {
		delete(header, "Trailer")
		return
	}
	header["Trailer"] = []string{strings.Join(kept, ", ")}
}

// keepHopOptions leaves close, keep-alive and upgrade in Connection.
func keepHopOptions(header http.Header, fields []string) {
	var kept []string
	for _, field := range fields {
		for option := range strings.SplitSeq(field, ",") {
			option = strings.TrimSpace(option)
			if strings.EqualFold(option, "close") || strings.EqualFold(option, "keep-alive") || strings.EqualFold(option, "upgrade") {
				kept = append(kept, option)
			}
		}
	}
	if len(kept) == 0 {
		delete(header, "Connection")
		return
	}
	header["Connection"] = []string{strings.Join(kept, ", ")}
}

// StripCredentials removes what authenticated the caller to us: the access
// token (MCP authorization: it must not travel on) and our own cookies. Other
// cookies stay as they are, byte for byte.
func StripCredentials(header http.Header) {
	delete(header, "Authorization")
	delete(header, "Proxy-Authorization")
	delete(header, "Dpop")
	StripCookies(header)
}

// ourCookies are the cookies of the authorization server, which may share the
// API's origin.
var ourCookies = []string{"__Host-oauth_login", "oauth_login", "__Host-oauth_browser", "oauth_browser"}

// StripCookies removes the authorization server's cookies, and no others.
func StripCookies(header http.Header) {
	fields := header["Cookie"]
	for i := 0; i < len(fields); i++ {
		if !strings.Contains(fields[i], "oauth_") {
			continue
		}
		var kept []string
		for cookie := range strings.SplitSeq(fields[i], ";") {
			name, _, _ := strings.Cut(strings.TrimSpace(cookie), "=")
			if !slices.Contains(ourCookies, strings.TrimSpace(name)) {
				kept = append(kept, strings.TrimLeft(cookie, " "))
			}
		}
		fields[i] = strings.Join(kept, "; ")
	}
	for len(fields) > 0 && fields[len(fields)-1] == "" {
		fields = fields[:len(fields)-1]
	}
	if len(fields) == 0 {
		delete(header, "Cookie")
		return
	}
	header["Cookie"] = fields
}

// StripSetCookies removes our own cookies from an answer of the upstream: who is
// signed in here is not the upstream's to say.
func StripSetCookies(header http.Header) {
	fields := header["Set-Cookie"]
	kept := slices.DeleteFunc(fields, func(field string) bool {
		name, _, _ := strings.Cut(field, "=")
		return slices.ContainsFunc(ourCookies, func(ours string) bool { return strings.EqualFold(ours, strings.TrimSpace(name)) })
	})
	if len(fields) > 0 && len(kept) == 0 {
		delete(header, "Set-Cookie")
	} else if len(kept) < len(fields) {
		header["Set-Cookie"] = kept
	}
}

// SetToken gives the upstream the identity token of this request.
func (p *HeaderPolicy) SetToken(header http.Header, token string) {
	header[p.names.Token] = []string{token}
}

// Passed returns those claims of a user that the upstream is told.
func (p *HeaderPolicy) Passed(claims oauth.UserClaims) oauth.UserClaims {
	var passed oauth.UserClaims
	for _, c := range p.names.Claims {
		if values := claims[c.Claim]; len(values) > 0 {
			if passed == nil {
				passed = make(oauth.UserClaims, len(p.names.Claims))
			}
			passed[c.Claim] = values
		}
	}
	return passed
}

// SetIdentity tells the upstream who is calling: each header once, and none for
// the user where there is none.
func (p *HeaderPolicy) SetIdentity(header http.Header, id *Identity) {
	// One array for the four values: this runs on every request.
	values := [4]string{headerValue(id.UserID), headerValue(id.ClientID), headerValue(id.SessionID), headerValue(id.Scopes)}
	backing := values[:]
	if id.UserID != "" {
		header[p.names.User] = backing[0:1:1]
	}
	header[p.names.Client] = backing[1:2:2]
	header[p.names.Session] = backing[2:3:3]
	header[p.names.Scopes] = backing[3:4:4]
	for _, c := range p.names.Claims {
		if values := id.Claims[c.Claim]; len(values) > 0 {
			header[c.Header] = []string{listValue(values)}
		}
	}
}

// listValue is one header value of several, each encoded so that none can pass
// for two.
func listValue(values []string) string {
	if len(values) == 1 {
		return headerValue(values[0])
	}
	encoded := make([]string, len(values))
	for i, value := range values {
		encoded[i] = headerValue(value)
	}
	return strings.Join(encoded, ",")
}

// headerValue makes any string one header value that cannot split, be trimmed
// or be read as two: bytes outside printable ASCII, `,` and `%` are
// percent-encoded, and so is a space at either end. Ordinary identifiers come
// through unchanged.
func headerValue(s string) string {
	for i := range len(s) {
		if mustEncode(s, i) {
			return encodeValue(s)
		}
	}
	return s
}

func mustEncode(s string, i int) bool {
	c := s[i]
	return c < ' ' || c > '~' || c == '%' || c == ',' || (c == ' ' && (i == 0 || i == len(s)-1))
}

func encodeValue(s string) string {
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		if !mustEncode(s, i) {
			b.WriteByte(s[i])
			continue
		}
		b.WriteByte('%')
		b.WriteByte(digits[s[i]>>4])
		b.WriteByte(digits[s[i]&15])
	}
	return b.String()
}

// checkUpgrade refuses every protocol switch but a WebSocket handshake: after
// `Upgrade: h2c` the upstream would take requests that the gate never sees.
func checkUpgrade(r *http.Request) *Refusal {
	fields, ok := r.Header["Upgrade"]
	if !ok {
		return nil
	}
	if len(fields) == 1 && strings.EqualFold(fields[0], "websocket") && r.Method == http.MethodGet {
		return nil
	}
	return badRequest("The protocol that the request wants to switch to is not allowed.", nil)
}
