package doctor

import (
	"encoding/json"
	"fmt"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/publicsuffix"

	"github.com/caddy-scope/caddy-scope/oauth"
)

// checkAddress: the servers of a hosted product come over the internet, with
// TLS.
func (e *examination) checkAddress() Result {
	if e.profile.Hosted == nil {
		return unused("nothing comes over the internet as far as is known")
	}
	for _, address := range []string{e.stage.Issuer, e.resource.Identifier} {
		u, err := url.Parse(address)
		switch {
		case err != nil || u.Scheme != "https":
			return fail(e.stage.inOption("issuer", "issuer https://YOUR.DOMAIN, and a site of that name"), "%s is not https", address).about(*e.profile.Hosted)
		case !isPublic(u.Hostname()):
			return fail(e.stage.inOption("issuer", "issuer https://YOUR.DOMAIN, and a site of that name: one that the whole internet can look up"),
				"the servers of the product cannot reach %s", u.Hostname()).about(*e.profile.Hosted)
		}
	}
	return pass("a public name with https").about(*e.profile.Hosted)
}

// isPublic reports whether a host is one that the internet knows, as far as its
// name tells.
func isPublic(host string) bool {
	if address, err := netip.ParseAddr(host); err == nil {
		return address.IsGlobalUnicast() && !address.IsPrivate()
	}
	suffix, official := publicsuffix.PublicSuffix(host)
	private := slices.Contains([]string{"localhost", "local", "internal", "lan", "home", "test", "invalid"}, host[strings.LastIndex(host, ".")+1:])
	return strings.Contains(host, ".") && !private && (official || strings.Contains(suffix, "."))
}

// checkDomain: authorization server and API must be of one registrable domain.
func (e *examination) checkDomain() Result {
	if e.profile.SameDomain == nil {
		return unused("the product does not compare domains")
	}
	issuer, resource := registrable(e.stage.Issuer), registrable(e.resource.Identifier)
	if issuer != resource {
		return fail(e.stage.inOption("issuer", "issuer https://NAME."+resource), "the authorization server is of %s, the API of %s", issuer, resource).about(*e.profile.SameDomain)
	}
	return pass("both are of %s", issuer).about(*e.profile.SameDomain)
}

func registrable(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return address
	}
	if domain, err := publicsuffix.EffectiveTLDPlusOne(u.Hostname()); err == nil {
		return domain
	}
	return u.Hostname()
}

// challenge is what the answer to a request without credentials says.
type challenge struct {
	scheme     string
	parameters map[string]string
}

// parseChallenge reads the first challenge as clients do: parameters in quotes.
func parseChallenge(header string) challenge {
	scheme, rest, _ := strings.Cut(header, " ")
	c := challenge{scheme, make(map[string]string)}
	for rest != "" {
		name, after, ok := strings.Cut(rest, `="`)
		if !ok {
			break
		}
		value, next, _ := strings.Cut(after, `"`)
		c.parameters[strings.Trim(name, ", ")] = value
		rest = next
	}
	return c
}

// checkChallenge: the product asks without credentials and must be told where to
// get some. RFC 9728 section 5.1.
func (e *examination) checkChallenge() Result {
	fact := e.profile.Challenge
	if fact == nil {
		return unused("the product knows where to sign in")
	}
	got, err := e.ask(http.MethodPost, e.resource.Identifier, Initialize)
	if err != nil {
		return e.unreachable(err).about(fact.Fact)
	}
	header := got.Header.Values("WWW-Authenticate")
	switch {
	case isRedirect(got):
		return fail("take the redirect away, or in the gate "+e.resource.Source+" write the address that it leads to: resource "+got.Header.Get("Location"),
			"%s is redirected to %s; products send no POST there", e.resource.Identifier, got.Header.Get("Location")).about(fact.Fact)
	case got.StatusCode != http.StatusUnauthorized:
		return fail(e.letGateAnswer(), "a request without credentials to %s is answered %s, not 401: the product does not ask the user to sign in", e.resource.Identifier, got.Status).about(fact.Fact)
	case len(header) == 0:
		return e.weakChallenge("in the site of "+e.resource.Source+", remove what deletes WWW-Authenticate (header, header_down, handle_errors)", "the answer 401 has no WWW-Authenticate")
	}
	e.challenge = parseChallenge(header[0])
	if !strings.EqualFold(e.challenge.scheme, "Bearer") {
		scheme := e.challenge.scheme
		e.challenge = challenge{}
		return e.weakChallenge("remove what adds a challenge of its own before the gate's: header WWW-Authenticate, basic_auth", "the first challenge is "+scheme+", not Bearer")
	}
	for _, name := range fact.Parameters {
		if e.challenge.parameters[name] == "" {
			return e.weakChallenge("remove what replaces the WWW-Authenticate of the gate "+e.resource.Source, "the challenge has no "+name)
		}
	}
	return pass("401 with %s", trimmed(header[0])).about(fact.Fact)
}

// weakChallenge is the end for products that go by the challenge. Others go on at
// the well-known address.
func (e *examination) weakChallenge(mend, reason string) Result {
	if !e.profile.Challenge.Header {
		return warn(mend, "%s: the product must guess where the metadata stand, and which scopes to ask for", reason).about(e.profile.Challenge.Fact)
	}
	return fail(mend, "%s", reason).about(e.profile.Challenge.Fact)
}

const Initialize = `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"doctor","version":"1"}}}`

func (e *examination) letGateAnswer() string {
	return "the gate " + e.resource.Source + " must be asked for POST " + e.resource.Identifier + ", with a rule that is not public and no route before it"
}

func isRedirect(a *answer) bool { return a.StatusCode >= 300 && a.StatusCode < 400 }

func (e *examination) unreachable(err error) Result {
	return fail("a site for the host of "+e.resource.Identifier+" and "+e.stage.Issuer+" that Caddy listens for", "%v", err)
}

// ask is a request of the discovery, and how long the answer took.
func (e *examination) ask(method, address, body string, headers ...string) (*answer, error) {
	if body != "" {
		headers = append(headers, "Content-Type", "application/json", "Accept", "application/json, text/event-stream")
	}
	begun := time.Now()
	got, err := send(e.wire, method, address, body, headers...)
	e.slowest = max(e.slowest, time.Since(begun))
	return got, err
}

// document is metadata.
type document map[string]any

// text is a member that is text; empty: it is not there.
func (d document) text(name string) string {
	text, _ := d[name].(string)
	return text
}

// has reports whether the member is there and, unless value is empty, is or
// contains it.
func (d document) has(member, value string) bool {
	got := d[member]
	list, isList := got.([]any)
	switch {
	case got == nil || got == "" || isList && len(list) == 0:
		return false
	case value == "":
		return true
	case isList:
		return slices.ContainsFunc(list, func(v any) bool { return fmt.Sprint(v) == value })
	}
	return fmt.Sprint(got) == value
}

// fetchDocument gets metadata; a Result that is no pass tells why it cannot.
func (e *examination) fetchDocument(address, written string) (document, Result) {
	e.moved = ""
	from := address
	got, err := e.ask(http.MethodGet, address, "", "MCP-Protocol-Version", "2025-11-25")
	for range 3 { // as libraries follow redirects
		if err != nil || !isRedirect(got) {
			break
		}
		e.moved = got.Header.Get("Location")
		if next, failed := got.Request.URL.Parse(e.moved); failed == nil {
			e.moved = next.String()
		}
		address = from + ", redirected to " + e.moved + ","
		got, err = e.ask(http.MethodGet, e.moved, "", "MCP-Protocol-Version", "2025-11-25")
	}
	if err != nil && e.moved != "" {
		return nil, fail(moveToWrite(from), "%s is redirected to %s, and there: %v", from, e.moved, err)
	}
	if err != nil {
		return nil, e.unreachable(err)
	}
	mediaType, _, _ := mime.ParseMediaType(got.Header.Get("Content-Type"))
	doc := make(document)
	switch {
	case isRedirect(got):
		return nil, fail(moveToWrite(from), "%s is redirected round in a circle", from)
	case got.StatusCode != http.StatusOK:
		return nil, fail(written, "%s is answered %s", address, got.Status)
	case mediaType != "application/json" || json.Unmarshal([]byte(got.body), &doc) != nil:
		return nil, fail(written, "%s is answered by something else: %q, %s", address, mediaType, trimmed(got.body))
	}
	for name, value := range doc {
		if value == nil {
			return nil, fail(written, "%s has a member that is null: %s", address, name)
		}
	}
	return doc, Result{Outcome: Pass}
}

func moveToWrite(address string) string {
	return "let " + address + " be answered without a redirect: oauth_server in that site, before any redir"
}

// found is a document that is good, unless it came after a redirect.
func (e *examination) found(address string) Result {
	if e.moved != "" {
		return warn(moveToWrite(address), "%s is redirected to %s; not every client follows", address, e.moved)
	}
	return pass("%s", address)
}

// checkResourceMetadata: RFC 9728, as products read it.
func (e *examination) checkResourceMetadata() Result {
	if e.profile.Kind != KindMCP {
		return unused("the product does not look for them")
	}
	address := e.challenge.parameters["resource_metadata"]
	if address == "" {
		address = oauth.ResourceMetadataURL(e.resource.Identifier)
	}
	if !strings.HasPrefix(address, oauth.Origin(e.resource.Identifier)+"/") {
		return fail("resource: one of the origin of the site, and oauth_server metadata in it", "the metadata stand at another origin: %s", address)
	}
	written := "oauth_server"
	if oauth.Origin(e.resource.Identifier) != oauth.Origin(e.stage.Issuer) {
		written = "oauth_server metadata"
	}
	doc, result := e.fetchDocument(address, written+" in the site of "+hostOf(address)+", outside of any handle that other paths have")
	if result.Outcome != Pass {
		return result.about(e.profile.Challenge.Fact)
	}
	e.resourceDoc = doc
	if named := doc.text("resource"); e.profile.Resource.Typed && named != e.resource.Identifier {
		return fail("let oauth_server answer for itself: nothing else may serve or change its metadata", "the metadata are those of %s, and the user typed %s", named, e.resource.Identifier).about(e.profile.Resource.Fact)
	}
	if servers, _ := doc["authorization_servers"].([]any); len(servers) == 0 || servers[0] != e.stage.Issuer {
		return fail("let oauth_server answer for itself: nothing else may serve or change its metadata", "the first of authorization_servers is not the issuer: %v", servers)
	}
	return e.required("resource", doc, e.found(address).about(e.profile.Challenge.Fact))
}

// required is good, unless the document lacks what the product demands.
func (e *examination) required(kind string, doc document, good Result) Result {
	for _, r := range e.profile.Requires {
		if r.Document == kind && !doc.has(r.Member, r.Contains) {
			return fail("let oauth_server answer for itself: nothing else may serve or change its metadata", "the %s metadata have no %s", kind, strings.TrimSpace(r.Member+" "+r.Contains)).about(r.Fact)
		}
	}
	return good
}

// checkServerMetadata: RFC 8414, as products read it.
func (e *examination) checkServerMetadata() Result {
	if len(e.profile.Requires) == 0 {
		return unused("the addresses are typed in")
	}
	address := oauth.IssuerMetadataURL(e.stage.Issuer)
	written := "oauth_server in the site of " + hostOf(address) + ", outside of any handle that other paths have, before what answers now"
	doc, result := e.fetchDocument(address, written)
	if result.Outcome != Pass {
		return result
	}
	e.serverDoc = doc
	if e.profile.ExactIssuer != nil && doc.text("issuer") != e.stage.Issuer {
		return fail(written, "the issuer in the metadata is %s", doc.text("issuer")).about(*e.profile.ExactIssuer)
	}
	good := e.found(address)
	if e.profile.ExactIssuer != nil {
		good = good.about(*e.profile.ExactIssuer)
	}
	return e.required("server", doc, good)
}

// checkOpenIDConfiguration: clients look for it beside the other, and half a
// document or a fault ends their discovery.
func (e *examination) checkOpenIDConfiguration() Result {
	if e.profile.OpenIDProbe == nil {
		return unused("the product does not look for it")
	}
	fact := *e.profile.OpenIDProbe
	for _, address := range oauth.OpenIDConfigurationURLs(e.stage.Issuer) {
		got, err := e.ask(http.MethodGet, address, "")
		if err != nil {
			return e.unreachable(err).about(fact)
		}
		if got.StatusCode >= 400 && got.StatusCode < 500 {
			continue
		}
		doc, result := e.fetchDocument(address, "oauth_server in the site of "+hostOf(address)+", before what answers now")
		if result.Outcome != Pass {
			return result.about(fact)
		}
		for _, member := range []string{"issuer", "authorization_endpoint", "token_endpoint", "jwks_uri", "response_types_supported", "subject_types_supported", "id_token_signing_alg_values_supported"} {
			if !doc.has(member, "") {
				return fail(e.stage.inOption("openid", "openid, or nothing at "+address), "%s has no %s", address, member).about(fact)
			}
		}
		return pass("a whole document").about(fact)
	}
	return pass("not there, and nothing else is").about(fact)
}

// checkCORS: a page may send nothing that a preflight was not answered for.
func (e *examination) checkCORS() Result {
	fact := e.profile.Browser
	if fact == nil {
		return unused("the product runs in no page")
	}
	targets := []struct{ method, address, mend string }{
		{http.MethodGet, oauth.ResourceMetadataURL(e.resource.Identifier), "remove what deletes Access-Control-Allow-Origin or answers OPTIONS before oauth_server"},
		{http.MethodGet, oauth.IssuerMetadataURL(e.stage.Issuer), "remove what deletes Access-Control-Allow-Origin or answers OPTIONS before oauth_server"},
		{http.MethodPost, e.serverDoc.text("registration_endpoint"), "remove what answers OPTIONS before oauth_server"},
		{http.MethodPost, e.serverDoc.text("token_endpoint"), "remove what answers OPTIONS before oauth_server"},
		{http.MethodPost, e.resource.Identifier, "in the gate " + e.resource.Source + ": cors " + fact.Origin},
	}
	for _, t := range targets {
		if t.address == "" {
			continue
		}
		got, err := e.ask(http.MethodOptions, t.address, "", "Origin", fact.Origin, "Access-Control-Request-Method", t.method,
			"Access-Control-Request-Headers", strings.Join(fact.Headers, ","))
		if err != nil {
			return e.unreachable(err).about(fact.Fact)
		}
		if why := refusesPreflight(got, fact); why != "" {
			return fail(t.mend, "the preflight for %s %s is not answered: %s", t.method, t.address, why).about(fact.Fact)
		}
	}
	got, err := e.ask(http.MethodPost, e.resource.Identifier, Initialize, "Origin", fact.Origin)
	if err != nil {
		return e.unreachable(err).about(fact.Fact)
	}
	exposed := strings.ToLower(strings.Join(got.Header.Values("Access-Control-Expose-Headers"), ","))
	for _, name := range fact.Reads {
		if !allowsOrigin(got, fact.Origin) || !strings.Contains(exposed, strings.ToLower(name)) {
			return fail("remove what deletes Access-Control-Allow-Origin or Access-Control-Expose-Headers in the site of "+e.resource.Source, "a page cannot read %s of the answer 401", name).about(fact.Fact)
		}
	}
	return pass("preflights and answers are for pages of %s", fact.Origin).about(fact.Fact)
}

func allowsOrigin(a *answer, origin string) bool {
	allowed := a.Header.Get("Access-Control-Allow-Origin")
	return allowed == "*" || allowed == origin
}

func refusesPreflight(a *answer, b *Browser) string {
	allowed := strings.ToLower(strings.Join(a.Header.Values("Access-Control-Allow-Headers"), ","))
	switch {
	case a.StatusCode < 200 || a.StatusCode > 299:
		return a.Status
	case !allowsOrigin(a, b.Origin):
		return "Access-Control-Allow-Origin does not name " + b.Origin
	}
	for _, name := range b.Headers {
		if !slices.Contains(strings.FieldsFunc(allowed, func(r rune) bool { return r == ',' || r == ' ' }), name) {
			return "Access-Control-Allow-Headers does not name " + name
		}
	}
	return ""
}

// checkTimeout: how long the answers of the running server took.
func (e *examination) checkTimeout() Result {
	switch fact := e.profile.Timeout; {
	case fact == nil:
		return unused("no bound is known")
	case e.stage.Live == nil:
		return unused("only --live can tell").about(fact.Fact)
	case e.slowest > fact.Discovery:
		return fail("find out what makes the server slow; the product gives up", "an answer took %s, longer than %s", e.slowest.Round(time.Millisecond), fact.Discovery).about(fact.Fact)
	default:
		return pass("the slowest answer took %s", e.slowest.Round(time.Millisecond)).about(fact.Fact)
	}
}

// checkSameAsConfigured: what runs serves the metadata of this configuration.
func (e *examination) checkSameAsConfigured() Result {
	if e.stage.Live == nil {
		return unused("only --live can tell")
	}
	for address, live := range map[string]document{
		oauth.IssuerMetadataURL(e.stage.Issuer): e.serverDoc, oauth.ResourceMetadataURL(e.resource.Identifier): e.resourceDoc,
	} {
		if live == nil {
			continue
		}
		got, err := send(e.flow, http.MethodGet, address, "")
		if err != nil {
			return e.unreachable(err)
		}
		configured := make(document)
		_ = json.Unmarshal([]byte(got.body), &configured)
		for name := range configured {
			if a, b := fmt.Sprint(configured[name]), fmt.Sprint(live[name]); a != b {
				return fail("caddy reload, or change what stands before Caddy and answers in its place", "%s of %s is %s where it runs, and %s in the configuration", name, address, b, a)
			}
		}
	}
	return pass("the running server serves this configuration")
}

func hostOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return address
	}
	host, _, err := net.SplitHostPort(u.Host)
	if err != nil {
		return u.Host
	}
	return host
}
