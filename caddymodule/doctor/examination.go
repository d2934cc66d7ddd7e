// Package doctor tells which products can connect to an authorization server and
// the gates of its resources, and what stands in the way of those that cannot.
//
// A profile is data: what a product is known to do, with the source of each fact.
// A check is a function that plays one thing a profile says, over HTTP, against a
// server that is rehearsed or runs. Nothing is fetched from anywhere else: what
// products publish stands in their profiles.
package doctor

import (
	"fmt"
	"io"
	"net/http"
	"path"
	"slices"
	"strings"
	"time"
)

// Stage is the server that products are tried on, and what its owner wrote.
type Stage struct {
	Issuer    string
	Places    map[string][]string // where words of the option oauth stand, and itself
	Resources []Resource
	Clients   []Client // of the configuration
	// Rehearse opens a server of its own for a product that publishes documents
	// at these URLs. Nothing that it does is kept.
	Rehearse func(documents map[string][]byte) (http.RoundTripper, error)
	// Live reaches the running server; nil: only the rehearsed one is asked.
	Live http.RoundTripper
	// Policy returns the client_policy for where a client comes from.
	Policy func(place string) Policy
	// SignIn reports whether users can sign in.
	SignIn bool
}

// Resource is what a gate protects.
type Resource struct {
	Identifier string
	Source     string // of its gate
	MCP        bool   // it may be an MCP server: users give its URL to products
	Calls      []Call
}

// Call is a request that a gate has a rule for.
type Call struct {
	Method, URL string
	Body        []byte // JSON
	Rule        string // with its place
}

// Client is a client of the configuration.
type Client struct {
	ID, Secret, Source string
	RedirectURIs       []string
	AuthMethods        []string
	Grants             []string
	Scopes             []string // that it may ask for
	PKCEOptional       bool
	Demanding          bool // requests must be pushed, or tokens bound to a key
}

// Policy is a client_policy. Pattern is empty where there is none.
type Policy struct {
	Pattern, Source string
	Deny            bool
	Scopes          []string // nil: no bound
}

// Outcome of a check.
type Outcome string

const (
	Pass   Outcome = "pass"
	Warn   Outcome = "warn" // the product works, with a drawback
	Fail   Outcome = "fail"
	Unused Outcome = "not used"
)

// Result is what a check found.
type Result struct {
	Check   string  `json:"check"`
	Outcome Outcome `json:"outcome"`
	Reason  string  `json:"reason,omitempty"`
	// Extent is how much of it: 3 of 5 rules; empty: all.
	Extent string `json:"extent,omitempty"`
	// Mend is what to write where.
	Mend string `json:"mend,omitempty"`
	// Fact is what the product does that this is about.
	Fact *Fact `json:"fact,omitempty"`

	goOn bool // it failed, and checks that come after it can be made
}

func pass(format string, args ...any) Result {
	return Result{Outcome: Pass, Reason: fmt.Sprintf(format, args...)}
}

func unused(format string, args ...any) Result {
	return Result{Outcome: Unused, Reason: fmt.Sprintf(format, args...)}
}

func warn(mend, format string, args ...any) Result {
	return Result{Outcome: Warn, Reason: fmt.Sprintf(format, args...), Mend: mend}
}

func fail(mend, format string, args ...any) Result {
	return Result{Outcome: Fail, Reason: fmt.Sprintf(format, args...), Mend: mend}
}

// and lets the checks that come after a failure go on.
func (r Result) andGoOn() Result {
	r.goOn = true
	return r
}

// about names the fact behind the result.
func (r Result) about(fact Fact) Result {
	r.Fact = &fact
	return r
}

// check is one thing that products do. It is not made unless those it needs did
// not fail.
type check struct {
	name  string
	run   func(*examination) Result
	needs []string
}

// checks are made in this order; what one finds out the next ones go by.
var checks = []check{
	{"address", (*examination).checkAddress, nil},
	{"domain", (*examination).checkDomain, nil},
	{"challenge", (*examination).checkChallenge, nil},
	{"resource-metadata", (*examination).checkResourceMetadata, nil},
	{"server-metadata", (*examination).checkServerMetadata, nil},
	{"openid-configuration", (*examination).checkOpenIDConfiguration, nil},
	{"cors", (*examination).checkCORS, nil},
	{"timeout", (*examination).checkTimeout, nil},
	{"same-as-configured", (*examination).checkSameAsConfigured, nil},
	{"registration", (*examination).checkRegistration, []string{"resource-metadata", "server-metadata"}},
	{"authentication", (*examination).checkAuthentication, []string{"registration"}},
	{"redirect", (*examination).checkRedirect, []string{"registration"}},
	{"pkce", (*examination).checkPKCE, []string{"redirect"}},
	{"resource", (*examination).checkResource, []string{"redirect", "pkce"}},
	{"scope", (*examination).checkScope, []string{"redirect", "pkce", "resource"}},
	{"request", (*examination).checkRequest, []string{"scope"}},
	{"sign-in", (*examination).checkSignIn, []string{"request"}},
	{"consent", (*examination).checkConsent, []string{"sign-in"}},
	{"token", (*examination).checkToken, []string{"authentication", "consent"}},
	{"call", (*examination).checkCall, []string{"token"}},
	{"step-up", (*examination).checkStepUp, []string{"call"}},
	{"refresh", (*examination).checkRefresh, []string{"token"}},
}

// examination is one product at one resource.
type examination struct {
	stage    *Stage
	profile  *Profile
	resource *Resource
	client   *Client // of the configuration; nil: the product registers itself

	flow http.RoundTripper // the rehearsed server
	wire http.RoundTripper // the running one, for what changes nothing there; else flow

	moved       string // to where metadata are redirected; empty: they are not
	challenge   challenge
	resourceDoc document
	serverDoc   document
	slowest     time.Duration

	way       *Way
	clientID  string
	secret    string
	methods   []string // at the token endpoint, that both sides can
	redirects []string
	asked     authorization
	code      string
	token     tokenAnswer
	refusal   *answer // of a call, for want of a scope
}

// run makes every check.
func (e *examination) run() []Result {
	failed := make(map[string]bool)
	var results []Result
	for _, c := range checks {
		i := slices.IndexFunc(c.needs, func(name string) bool { return failed[name] })
		result := Result{}
		if i >= 0 {
			result = unused("%s comes first", c.needs[i])
		} else {
			result = c.run(e)
		}
		result.Check = c.name
		failed[c.name] = result.Outcome == Fail && !result.goOn || i >= 0
		results = append(results, result)
	}
	return results
}

// Product is a product at a resource.
type Product struct {
	Name     string   `json:"name"`
	Title    string   `json:"title"`
	Note     string   `json:"note,omitempty"` // of its profile
	Resource string   `json:"resource,omitempty"`
	Client   string   `json:"client,omitempty"` // its client_id, or how it registers
	Verdict  Verdict  `json:"verdict"`
	Reason   string   `json:"reason,omitempty"` // why it is not served
	Mend     string   `json:"mend,omitempty"`
	Results  []Result `json:"results,omitempty"`
}

// Verdict is what becomes of a product.
type Verdict string

const (
	Works     Verdict = "works"
	Fails     Verdict = "fails"
	NotServed Verdict = "not served" // nothing in the configuration is for it
)

// Examine tries the products one by one. resource is the only one to try; empty:
// all that are for the product.
func (s *Stage) Examine(products []*Profile, resource string) ([]Product, error) {
	var found []Product
	for _, profile := range products {
		tried, err := s.examineProduct(profile, resource)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", profile.Name, err)
		}
		found = append(found, tried...)
	}
	return found, nil
}

func (s *Stage) examineProduct(p *Profile, identifier string) ([]Product, error) {
	var found []Product
	for i := range s.Resources {
		r := &s.Resources[i]
		if identifier != "" && r.Identifier != identifier || identifier == "" && r.MCP != (p.Kind == KindMCP) {
			continue
		}
		tried, err := s.examineClients(p, r)
		if err != nil {
			return nil, err
		}
		found = append(found, tried...)
	}
	if len(found) == 0 {
		return []Product{s.withoutResource(p)}, nil
	}
	return found, nil
}

// examineClients tries the product as what it is to the server: the client that
// it makes of itself, as nobody has to type anything for that, and unless that
// works, those of the configuration.
func (s *Stage) examineClients(p *Profile, r *Resource) ([]Product, error) {
	itself, err := s.examineAt(p, r, nil)
	if err != nil || itself.Verdict == Works {
		return []Product{itself}, err
	}
	found := []Product{itself}
	if itself.Verdict == NotServed {
		found = nil
	}
	for _, client := range s.clientsOf(p) {
		product, err := s.examineAt(p, r, client)
		if err != nil {
			return nil, err
		}
		found = append(found, product)
	}
	if len(found) == 0 {
		return []Product{itself}, nil
	}
	return found, nil
}

func (s *Stage) withoutResource(p *Profile) Product {
	product := Product{Name: p.Name, Title: p.Title, Note: p.Note, Verdict: NotServed}
	if product.Reason = "no gate stands before an API"; p.Kind == KindMCP {
		product.Reason = "no gate stands before an MCP server"
		product.Mend = "in the site of the MCP server: oauth_protect /mcp authenticated {\n\tresource /mcp\n\ttool NAME SCOPE\n}"
	}
	return product
}

func (s *Stage) examineAt(p *Profile, r *Resource, client *Client) (Product, error) {
	product := Product{Name: p.Name, Title: p.Title, Note: p.Note, Resource: r.Identifier}
	documents := make(map[string][]byte)
	for i := range p.Registration {
		if way := &p.Registration[i]; way.By == ByDocument {
			documents[way.ClientID] = way.document()
		}
	}
	flow, err := s.Rehearse(documents)
	if err != nil {
		return product, err
	}
	e := &examination{stage: s, profile: p, resource: r, client: client, flow: flow, wire: flow}
	if s.Live != nil {
		e.wire = s.Live
	}
	if reason, mend := e.notServed(); reason != "" {
		product.Verdict, product.Reason, product.Mend = NotServed, reason, mend
		return product, nil
	}
	product.Results, product.Verdict = e.run(), Works
	if slices.ContainsFunc(product.Results, func(r Result) bool { return r.Outcome == Fail }) {
		product.Verdict = Fails
	}
	product.Client = e.clientID
	if e.way != nil && e.way.By == ByRegistration {
		product.Client = "registers itself"
	}
	return product, nil
}

// answer is an HTTP answer with its body.
type answer struct {
	*http.Response
	body string
}

const longestBody = 1 << 20

// do sends a request and reads the answer, following no redirect.
func do(by http.RoundTripper, r *http.Request) (*answer, error) {
	response, err := by.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, longestBody))
	return &answer{response, string(body)}, err
}

// send makes a request of method, URL, headers (name, value) and body.
func send(by http.RoundTripper, method, address, body string, headers ...string) (*answer, error) {
	r, err := http.NewRequest(method, address, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return do(by, r)
}

// matches reports whether the redirect URI is one of the pattern, in which * is
// one segment of a path and {port} any port of a loopback host, or none.
func matches(pattern, uri string) bool {
	if before, after, ported := strings.Cut(pattern, ":{port}"); ported {
		rest, ok := strings.CutPrefix(uri, before)
		return ok && (rest == after || strings.HasPrefix(rest, ":") && strings.TrimLeft(rest[1:], "0123456789") == after)
	}
	ok, err := path.Match(pattern, uri)
	return err == nil && ok
}

func trimmed(text string) string {
	const longest = 160
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > longest {
		text = strings.ToValidUTF8(text[:longest], "") + "…"
	}
	return text
}
