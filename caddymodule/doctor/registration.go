package doctor

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// Loopback ports: of the registration, and of a later start of the product.
const registeredPort, laterPort = "49152", "49777"

func withPort(uri, port string) string { return strings.ReplaceAll(uri, "{port}", port) }

// clientsOf returns the clients of the configuration that are the product's.
func (s *Stage) clientsOf(p *Profile) (found []*Client) {
	for i := range s.Clients {
		if c := &s.Clients[i]; p.wayOf(c) != nil {
			found = append(found, c)
		}
	}
	return found
}

// wayOf returns the way by which the client would be the product's; nil: it is
// not.
func (p *Profile) wayOf(c *Client) *Way {
	for i := range p.Registration {
		way := &p.Registration[i]
		switch {
		case way.By != ByConfiguration:
		case p.Kind == KindMachine && slices.Contains(c.Grants, "client_credentials"),
			way.AnyRedirectURI && len(c.RedirectURIs) > 0 && !c.PKCEOptional && !c.Demanding,
			slices.ContainsFunc(way.RedirectURIs, func(pattern string) bool {
				return slices.ContainsFunc(c.RedirectURIs, func(uri string) bool { return matches(pattern, uri) })
			}):
			return way
		}
	}
	return nil
}

// notServed reports why the configuration has nothing for the product, as its
// owner may want it; empty: it has.
func (e *examination) notServed() (reason, mend string) {
	if e.client != nil {
		return "", ""
	}
	if e.profile.Kind != KindMCP {
		return "no client of the configuration is the product's", e.clientToWrite()
	}
	doc, result := (&examination{stage: e.stage, profile: e.profile, resource: e.resource, flow: e.flow, wire: e.flow}).configuredMetadata()
	if result.Outcome != Pass {
		return "", "" // a fault, and its check tells of it
	}
	way := e.wayBy(doc)
	if way == nil {
		return "clients cannot register in the way that the product does", e.wayToWrite()
	}
	for _, place := range way.places() {
		if policy := e.stage.Policy(place); policy.Deny {
			return fmt.Sprintf("client_policy %s at %s refuses %s", policy.Pattern, policy.Source, place), e.policyToWrite(place, policy)
		}
	}
	return "", ""
}

func (e *examination) configuredMetadata() (document, Result) {
	result := e.checkServerMetadata()
	return e.serverDoc, result
}

// places are where the client comes from, to a client_policy.
func (w *Way) places() []string {
	switch w.By {
	case ByDocument:
		return []string{w.ClientID}
	case ByRegistration:
		var uris []string
		list, _ := w.Body["redirect_uris"].([]any)
		for _, uri := range list {
			uris = append(uris, withPort(fmt.Sprint(uri), registeredPort))
		}
		return uris
	}
	return nil
}

func (e *examination) policyToWrite(place string, policy Policy) string {
	pattern := "loopback"
	if host, ok := strings.CutPrefix(place, "https://"); ok {
		host, _, _ = strings.Cut(host, "/")
		pattern = "https://" + host + "/*"
	}
	if pattern == policy.Pattern {
		return "at " + policy.Source + ", in place of deny: scopes NAME..."
	}
	return e.stage.inOption("", "client_policy "+pattern+" {\n\tscopes NAME...\n}")
}

// wayBy returns the first way that the product would take with this metadata.
func (e *examination) wayBy(doc document) *Way {
	for i := range e.profile.Registration {
		way := &e.profile.Registration[i]
		usable := way.By != ByConfiguration
		for member, value := range way.When {
			usable = usable && doc.has(member, value)
		}
		if usable {
			return way
		}
	}
	return nil
}

// wayToWrite is what lets the product in.
func (e *examination) wayToWrite() string {
	word := "dynamic"
	if e.profile.Registration[0].By == ByDocument {
		word = "metadata_documents"
	}
	return e.stage.inBlock("registration", word)
}

func (e *examination) clientToWrite() string {
	lines := []string{e.stage.inOption("", "client NAME {")}
	if e.profile.Kind == KindMachine {
		lines = append(lines, "\tsecret {env.NAME_SECRET}", "\tgrants client_credentials", "\tscope  NAME...")
	} else {
		lines = append(lines, "\tsecret       {env.NAME_SECRET}")
		if e.profile.Registration[0].AnyRedirectURI {
			lines = append(lines, "\tredirect_uri https://YOUR.APP/callback")
		}
		for _, uri := range e.profile.Registration[0].RedirectURIs {
			lines = append(lines, "\tredirect_uri "+strings.ReplaceAll(uri, "*", "g-ID"))
		}
		if e.profile.PKCE.Method == "none" {
			lines = append(lines, "\tpkce         optional")
		}
	}
	return strings.Join(append(lines, "}"), "\n")
}

// checkRegistration: the product becomes a client in the first way that it
// finds.
func (e *examination) checkRegistration() Result {
	if e.client != nil {
		e.way = e.profile.wayOf(e.client)
		e.clientID, e.secret, e.methods = e.client.ID, e.client.Secret, e.client.AuthMethods
		e.redirects = e.configuredRedirects()
		return pass("client %s at %s", e.client.ID, e.client.Source).about(e.way.Fact)
	}
	if e.way = e.wayBy(e.serverDoc); e.way == nil {
		return fail(e.wayToWrite(), "clients cannot register in the way that the product does")
	}
	for _, uri := range e.way.RedirectURIs {
		e.redirects = append(e.redirects, withPort(uri, laterPort))
	}
	if e.way.By == ByDocument {
		e.clientID, e.methods = e.way.ClientID, e.profile.Authentication.Methods
		return pass("by its document %s", e.clientID).about(e.way.Fact)
	}
	return e.register().about(e.way.Fact)
}

// configuredRedirects are those that the product uses with the client.
func (e *examination) configuredRedirects() (uris []string) {
	if e.way.AnyRedirectURI {
		return e.client.RedirectURIs
	}
	for _, pattern := range e.way.RedirectURIs {
		if !strings.Contains(pattern, "*") {
			uris = append(uris, withPort(pattern, laterPort))
			continue
		}
		had := len(uris)
		for _, uri := range e.client.RedirectURIs {
			if matches(pattern, uri) {
				uris = append(uris, uri)
			}
		}
		if len(uris) == had { // it is used all the same
			uris = append(uris, strings.ReplaceAll(pattern, "*", e.idOf()))
		}
	}
	return uris
}

// idOf is what the client's redirect URIs have for *.
func (e *examination) idOf() string {
	for _, pattern := range e.way.RedirectURIs {
		before, after, wild := strings.Cut(pattern, "*")
		for _, uri := range e.client.RedirectURIs {
			if wild && matches(pattern, uri) {
				return strings.TrimSuffix(strings.TrimPrefix(uri, before), after)
			}
		}
	}
	return "ID"
}

// register plays RFC 7591.
func (e *examination) register() Result {
	body, err := json.Marshal(e.way.Body)
	if err != nil {
		return fail("", "%v", err)
	}
	got, err := send(e.flow, http.MethodPost, e.serverDoc.text("registration_endpoint"), withPort(string(body), registeredPort),
		"Content-Type", "application/json", "Accept", "application/json")
	if err != nil {
		return e.unreachable(err)
	}
	answered := make(document)
	if json.Unmarshal([]byte(got.body), &answered) != nil || got.StatusCode != http.StatusCreated {
		return e.refusedRegistration(got, answered)
	}
	for _, member := range append([]string{"client_id"}, e.way.Answer...) {
		if !answered.has(member, "") {
			return fail("", "the answer to the registration has no %s", member)
		}
	}
	for name, value := range answered {
		if value == nil {
			return fail("", "the answer to the registration has a member that is null: %s", name)
		}
	}
	e.clientID, e.secret, e.methods = answered.text("client_id"), answered.text("client_secret"), []string{answered.text("token_endpoint_auth_method")}
	return pass("registered itself as %q", answered.text("client_name"))
}

func (e *examination) refusedRegistration(got *answer, answered document) Result {
	for _, place := range e.way.places() {
		if policy := e.stage.Policy(place); policy.Deny {
			return fail(e.policyToWrite(place, policy), "client_policy %s at %s refuses %s", policy.Pattern, policy.Source, place)
		}
	}
	if got.StatusCode == http.StatusUnauthorized {
		return fail(e.stage.inBlock("registration", "remove initial_access_token, or write a client for the product"), "the registration asks for a token that the product does not have")
	}
	return fail("let oauth_server answer POST /oauth/register", "the registration is answered %s: %s", got.Status, trimmed(answered.text("error_description")+" "+answered.text("error")))
}

// checkAuthentication: there is a method that both sides can.
func (e *examination) checkAuthentication() Result {
	fact := e.profile.Authentication
	var common []string
	for _, method := range fact.Methods {
		if slices.Contains(e.methods, method) && (e.serverDoc == nil || e.serverDoc.has("token_endpoint_auth_methods_supported", method)) {
			common = append(common, method)
		}
	}
	if e.way.By == ByConfiguration && fact.Choice && e.secret == "" {
		return fail(e.inClient("secret {env.NAME_SECRET}"), "the client has no secret, and the product wants one").about(fact.Fact)
	}
	if len(common) == 0 {
		return fail(e.inClient("auth_method "+fact.Methods[0]), "the client may authenticate by %s, the product by %s", strings.Join(e.methods, ", "), strings.Join(fact.Methods, ", ")).about(fact.Fact)
	}
	e.methods = common
	return pass("%s", strings.Join(common, ", ")).about(fact.Fact)
}
