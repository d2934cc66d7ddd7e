package doctor

import (
	"bytes"
	"cmp"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// Profile is what a product is known to do. Every fact names its source; what a
// profile does not say, no check asks. docs/doctor.md describes the members.
type Profile struct {
	Name  string `yaml:"name" json:"name"`
	Title string `yaml:"title" json:"title"`
	Kind  Kind   `yaml:"kind" json:"kind"`
	// Like names the profile whose facts hold where this one says nothing.
	Like string `yaml:"like" json:"-"`
	Note string `yaml:"note" json:"note,omitempty"`

	Hosted         *Fact           `yaml:"hosted" json:"hosted,omitempty"`
	SameDomain     *Fact           `yaml:"same_domain" json:"same_domain,omitempty"`
	Challenge      *Challenge      `yaml:"challenge" json:"challenge,omitempty"`
	Requires       []Requirement   `yaml:"requires" json:"requires,omitempty"`
	ExactIssuer    *Fact           `yaml:"exact_issuer" json:"exact_issuer,omitempty"`
	ResponseIssuer *Fact           `yaml:"response_issuer" json:"response_issuer,omitempty"`
	OpenIDProbe    *Fact           `yaml:"openid_probe" json:"openid_probe,omitempty"`
	Browser        *Browser        `yaml:"browser" json:"browser,omitempty"`
	Registration   []Way           `yaml:"registration" json:"registration,omitempty"`
	Authentication *Authentication `yaml:"authentication" json:"authentication,omitempty"`
	PKCE           *PKCE           `yaml:"pkce" json:"pkce,omitempty"`
	Resource       *ResourceUse    `yaml:"resource" json:"resource,omitempty"`
	Scope          *ScopeUse       `yaml:"scope" json:"scope,omitempty"`
	Refresh        *Refresh        `yaml:"refresh" json:"refresh,omitempty"`
	StepUp         *Fact           `yaml:"step_up" json:"step_up,omitempty"`
	Timeout        *Timeout        `yaml:"timeout" json:"timeout,omitempty"`
}

// Kind is what a product connects to.
type Kind string

const (
	KindMCP     Kind = "mcp"     // an MCP server behind a gate, found by its URL
	KindAPI     Kind = "api"     // an API, with addresses that somebody typed in
	KindMachine Kind = "machine" // an API, for itself and not for a user
)

// Fact is something a product does, and how that is known.
type Fact struct {
	Source string `yaml:"source" json:"source"` // a name in sources.yaml
	Note   string `yaml:"note" json:"note,omitempty"`
}

// Challenge is what the answer to a request without credentials must have.
type Challenge struct {
	Fact `yaml:",inline"`
	// Header: without one the product does not look further. Else it goes on at the
	// well-known address.
	Header     bool     `yaml:"header" json:"header,omitempty"`
	Parameters []string `yaml:"parameters" json:"parameters,omitempty"`
}

// Requirement is a member that metadata must have.
type Requirement struct {
	Fact     `yaml:",inline"`
	Document string `yaml:"document" json:"document"` // server or resource
	Member   string `yaml:"member" json:"member"`
	Contains string `yaml:"contains" json:"contains,omitempty"` // empty: any value but null and nothing
}

// Browser is a client that runs in a page: every request is subject to CORS.
type Browser struct {
	Fact    `yaml:",inline"`
	Origin  string   `yaml:"origin" json:"origin"`
	Headers []string `yaml:"headers" json:"headers,omitempty"` // that its requests carry beside the safe ones
	Reads   []string `yaml:"reads" json:"reads,omitempty"`     // response headers that it reads
}

// Way is one way of being known to the server.
type Way struct {
	Fact `yaml:",inline"`
	By   By `yaml:"by" json:"by"`
	// When are members of the server's metadata without which it is not taken,
	// with the value that is looked for; empty: any.
	When map[string]string `yaml:"when" json:"when,omitempty"`
	// ClientID and Document are those of a client that publishes its metadata.
	ClientID string         `yaml:"client_id" json:"client_id,omitempty"`
	Document map[string]any `yaml:"document" json:"document,omitempty"`
	// Body is what is sent to the registration endpoint.
	Body map[string]any `yaml:"body" json:"body,omitempty"`
	// Answer are members without which the product does not take the answer.
	Answer []string `yaml:"answer" json:"answer,omitempty"`
	// RedirectURIs are those that requests use: each must be good. {port} is a
	// loopback port, another one than at registration; * in a configured client's
	// is an identifier of the product.
	RedirectURIs []string `yaml:"redirect_uris" json:"redirect_uris,omitempty"`
	// AnyRedirectURI: those of the configured client are used.
	AnyRedirectURI bool `yaml:"any_redirect_uri" json:"any_redirect_uri,omitempty"`
}

// By is a way of registration.
type By string

const (
	ByConfiguration By = "configuration" // a client of the Caddyfile
	ByDocument      By = "document"      // a client ID metadata document
	ByRegistration  By = "registration"  // RFC 7591
)

// Authentication is how the product proves itself at the token endpoint.
type Authentication struct {
	Fact    `yaml:",inline"`
	Methods []string `yaml:"methods" json:"methods"` // that it can, preferred first
	// Choice is one, where the owner chooses which: each that is configured must do.
	Choice bool `yaml:"choice" json:"choice,omitempty"`
}

// PKCE is the code_challenge_method, or none.
type PKCE struct {
	Fact   `yaml:",inline"`
	Method string `yaml:"method" json:"method"`
}

// ResourceUse is the form in which `resource` is sent.
type ResourceUse struct {
	Fact `yaml:",inline"`
	// Form is metadata (as the resource's metadata has it), canonical (lower case,
	// no slash at the end, no default port), href (with a slash after a bare host)
	// or none.
	Form string `yaml:"form" json:"form"`
	// Typed: the metadata must name the URL that the user typed, byte for byte.
	Typed bool `yaml:"typed" json:"typed,omitempty"`
}

// ScopeUse is which scopes are asked for.
type ScopeUse struct {
	Fact `yaml:",inline"`
	// From are tried in order: challenge, metadata, none, configured.
	From []string `yaml:"from" json:"from"`
	// Adds are asked for beside them if the server lists them.
	Adds []string `yaml:"adds" json:"adds,omitempty"`
}

// Refresh is what the product expects of refresh tokens.
type Refresh struct {
	Fact `yaml:",inline"`
	// Ahead is how long before the end of the access token it refreshes.
	Ahead time.Duration `yaml:"ahead" json:"ahead,omitempty"`
	// Repeats: it refreshes twice at once, or loses an answer and asks again.
	Repeats bool `yaml:"repeats" json:"repeats,omitempty"`
	// Dead is the error by which it knows that it must ask the user again.
	Dead string `yaml:"dead" json:"dead,omitempty"`
}

// Timeout is how long the product waits.
type Timeout struct {
	Fact      `yaml:",inline"`
	Discovery time.Duration `yaml:"discovery" json:"discovery"`
}

// Source is where a fact comes from.
type Source struct {
	Title string `yaml:"title" json:"title"`
	// Date is when it was written or looked at: YYYY-MM-DD or YYYY-MM.
	Date string `yaml:"date" json:"date"`
}

//go:embed profiles
var embedded embed.FS

// Library is every profile with the sources of its facts.
type Library struct {
	Profiles []*Profile // in the order of their names
	Sources  map[string]Source
}

// Known returns the profiles that come with the program.
func Known() (*Library, error) {
	l := &Library{Sources: make(map[string]Source)}
	files, err := embedded.ReadDir("profiles")
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		content, err := embedded.ReadFile(path.Join("profiles", file.Name()))
		if err != nil {
			return nil, err
		}
		if err := l.Add(file.Name(), content); err != nil {
			return nil, err
		}
	}
	return l, l.complete()
}

// Add reads a profile; the file sources.yaml holds sources. Unknown members are
// errors.
func (l *Library) Add(name string, content []byte) error {
	if name == "sources.yaml" {
		return strictly(name, content, &l.Sources)
	}
	p := new(Profile)
	if err := strictly(name, content, p); err != nil {
		return err
	}
	if p.Name+".yaml" != name {
		return fmt.Errorf("%s: the name is %q, not that of the file", name, p.Name)
	}
	l.Profiles = append(l.Profiles, p)
	return nil
}

func strictly(name string, content []byte, into any) error {
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	decoder.KnownFields(true)
	if err := decoder.Decode(into); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// complete fills what profiles take from others and checks them all.
func (l *Library) complete() error {
	for id, source := range l.Sources {
		if _, err := time.Parse("2006-01-02", source.Date); err != nil {
			if _, err := time.Parse("2006-01", source.Date); err != nil || source.Title == "" {
				return fmt.Errorf("sources.yaml: %s needs a title and a date", id)
			}
		}
	}
	for _, p := range l.Profiles {
		if p.Like == "" {
			continue
		}
		base := l.find(p.Like)
		if base == nil || base.Like != "" {
			return fmt.Errorf("%s.yaml: like %q is not a profile that stands for itself", p.Name, p.Like)
		}
		p.fillFrom(base)
	}
	l.Profiles = slices.DeleteFunc(l.Profiles, func(p *Profile) bool { return p.Kind == "" }) // only there to be like
	slices.SortFunc(l.Profiles, func(a, b *Profile) int { return cmp.Compare(a.Name, b.Name) })
	for _, p := range l.Profiles {
		if err := p.check(l.Sources); err != nil {
			return fmt.Errorf("%s.yaml: %w", p.Name, err)
		}
	}
	return nil
}

func (l *Library) find(name string) *Profile {
	for _, p := range l.Profiles {
		if p.Name == name {
			return p
		}
	}
	return nil
}

// Select returns the profiles with these names; without any, all.
func (l *Library) Select(names []string) ([]*Profile, error) {
	if len(names) == 0 {
		return l.Profiles, nil
	}
	var chosen []*Profile
	for _, name := range names {
		p := l.find(name)
		if p == nil {
			return nil, fmt.Errorf("product %q is not known; known are %s", name, strings.Join(l.names(), ", "))
		}
		chosen = append(chosen, p)
	}
	return chosen, nil
}

func (l *Library) names() []string {
	names := make([]string, len(l.Profiles))
	for i, p := range l.Profiles {
		names[i] = p.Name
	}
	return names
}

// fillFrom takes the facts of another profile that this one does not have.
func (p *Profile) fillFrom(base *Profile) {
	p.Hosted = cmp.Or(p.Hosted, base.Hosted)
	p.SameDomain = cmp.Or(p.SameDomain, base.SameDomain)
	p.Challenge = cmp.Or(p.Challenge, base.Challenge)
	p.Requires = append(p.Requires, base.Requires...)
	p.ExactIssuer = cmp.Or(p.ExactIssuer, base.ExactIssuer)
	p.ResponseIssuer = cmp.Or(p.ResponseIssuer, base.ResponseIssuer)
	p.OpenIDProbe = cmp.Or(p.OpenIDProbe, base.OpenIDProbe)
	p.Browser = cmp.Or(p.Browser, base.Browser)
	p.Authentication = cmp.Or(p.Authentication, base.Authentication)
	p.PKCE = cmp.Or(p.PKCE, base.PKCE)
	p.Resource = cmp.Or(p.Resource, base.Resource)
	p.Scope = cmp.Or(p.Scope, base.Scope)
	p.Refresh = cmp.Or(p.Refresh, base.Refresh)
	p.StepUp = cmp.Or(p.StepUp, base.StepUp)
	p.Timeout = cmp.Or(p.Timeout, base.Timeout)
	if p.Registration == nil {
		p.Registration = base.Registration
	}
}

// check refuses what no check could read, and facts that nobody vouches for.
func (p *Profile) check(sources map[string]Source) error {
	if p.Title == "" || !slices.Contains([]Kind{KindMCP, KindAPI, KindMachine}, p.Kind) {
		return errors.New("title is missing, or kind is none of mcp, api, machine")
	}
	if len(p.Registration) == 0 || p.Authentication == nil {
		return errors.New("registration and authentication must be there")
	}
	if p.Kind != KindMachine && (p.PKCE == nil || p.Resource == nil || p.Scope == nil) {
		return errors.New("pkce, resource and scope must be there")
	}
	for name, fact := range p.facts() {
		if _, known := sources[fact.Source]; !known {
			return fmt.Errorf("%s: source %q is not in sources.yaml", name, fact.Source)
		}
	}
	for i := range p.Registration {
		if err := p.Registration[i].check(); err != nil {
			return fmt.Errorf("registration by %s: %w", p.Registration[i].By, err)
		}
	}
	for _, r := range p.Requires {
		if r.Document != "server" && r.Document != "resource" || r.Member == "" {
			return fmt.Errorf("requires: document %q is neither server nor resource, or member is missing", r.Document)
		}
	}
	if p.PKCE != nil && p.PKCE.Method != "S256" && p.PKCE.Method != "none" {
		return fmt.Errorf("pkce: method %q is neither S256 nor none", p.PKCE.Method)
	}
	if p.Resource != nil && !slices.Contains([]string{"metadata", "canonical", "href", "none"}, p.Resource.Form) {
		return fmt.Errorf("resource: form %q is unknown", p.Resource.Form)
	}
	if p.Scope != nil {
		for _, from := range p.Scope.From {
			if !slices.Contains([]string{"challenge", "metadata", "none", "configured"}, from) {
				return fmt.Errorf("scope: from %q is unknown", from)
			}
		}
	}
	return nil
}

// check refuses a way that cannot be gone.
func (w *Way) check() error {
	switch {
	case w.By == ByDocument && (w.Document == nil || w.Document["client_id"] != w.ClientID || w.ClientID == ""):
		return errors.New("it needs a document whose client_id is its own")
	case w.By == ByRegistration && w.Body == nil:
		return errors.New("it needs a body")
	case w.By != ByDocument && w.By != ByRegistration && w.By != ByConfiguration:
		return errors.New("it is neither configuration nor document nor registration")
	case w.By != ByConfiguration && len(w.RedirectURIs) == 0:
		return errors.New("it needs redirect_uris")
	}
	return nil
}

// document is the document as it is published.
func (w *Way) document() []byte {
	text, err := json.Marshal(w.Document)
	if err != nil {
		panic(err) // it came out of YAML with text for keys
	}
	return text
}

// facts are all of the profile, by what they are about.
func (p *Profile) facts() map[string]Fact {
	facts := make(map[string]Fact)
	add := func(name string, there bool, fact func() Fact) {
		if there {
			facts[name] = fact()
		}
	}
	add("hosted", p.Hosted != nil, func() Fact { return *p.Hosted })
	add("same_domain", p.SameDomain != nil, func() Fact { return *p.SameDomain })
	add("challenge", p.Challenge != nil, func() Fact { return p.Challenge.Fact })
	add("exact_issuer", p.ExactIssuer != nil, func() Fact { return *p.ExactIssuer })
	add("response_issuer", p.ResponseIssuer != nil, func() Fact { return *p.ResponseIssuer })
	add("openid_probe", p.OpenIDProbe != nil, func() Fact { return *p.OpenIDProbe })
	add("browser", p.Browser != nil, func() Fact { return p.Browser.Fact })
	add("authentication", p.Authentication != nil, func() Fact { return p.Authentication.Fact })
	add("pkce", p.PKCE != nil, func() Fact { return p.PKCE.Fact })
	add("resource", p.Resource != nil, func() Fact { return p.Resource.Fact })
	add("scope", p.Scope != nil, func() Fact { return p.Scope.Fact })
	add("refresh", p.Refresh != nil, func() Fact { return p.Refresh.Fact })
	add("step_up", p.StepUp != nil, func() Fact { return *p.StepUp })
	add("timeout", p.Timeout != nil, func() Fact { return p.Timeout.Fact })
	for i, way := range p.Registration {
		add(fmt.Sprintf("registration %d", i+1), true, func() Fact { return way.Fact })
	}
	for _, r := range p.Requires {
		add("requires "+r.Member, true, func() Fact { return r.Fact })
	}
	return facts
}
