package oauth

import "errors"

// ErrUnknownKey is what a set of keys says of a kid that is not in it.
var ErrUnknownKey = errors.New("unknown kid")

// IdentityTokenType is the `typ` of the tokens by which a gate tells its upstream
// who is calling. It is no media type of any standard, so that no such token can
// pass for one of another kind, nor one of those for it. RFC 8725 section 3.11.
const IdentityTokenType = "upstream-identity+jwt"

// UpstreamAudience returns the `aud` of identity tokens where the configuration
// has none: the resource with a fragment. An identifier has none (RFC 8707 section
// 2), so that what an upstream receives is no access token for anybody, not even
// for a service that overlooks `typ`.
func UpstreamAudience(resource string) string { return resource + "#upstream" }

// CheckUpstreamAudience refuses an audience that access tokens may have.
func CheckUpstreamAudience(audience string) error {
	if _, err := ParseIdentifier(audience); err == nil {
		return errors.New("could be a resource, and what is made out for it an access token; add a fragment, such as " + UpstreamAudience(audience) + ", or take a name")
	}
	return nil
}
