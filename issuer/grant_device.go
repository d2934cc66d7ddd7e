package issuer

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/caddy-scope/caddy-scope/oauth"
)

// grantDevice answers a device that asks whether its user has decided, and
// gives it its tokens once. RFC 8628 sections 3.4 and 3.5.
func (s *Server) grantDevice(ctx context.Context, req tokenRequest) (*tokenResponse, error) {
	presented := req.params["device_code"]
	if presented == "" {
		return nil, oauth.InvalidRequest("The device_code is missing.")
	}
	if !hasPrefixAndBound(presented, deviceCodePrefix, 128) {
		return nil, errDeviceGrant
	}
	session, err := s.cfg.Store.RedeemDeviceCode(ctx, sha256.Sum256([]byte(presented)), req.client.ID, s.sessionLifetime(req), req.origin)
	switch {
	case errors.Is(err, ErrNotFound): // unknown, another client's, redeemed
		return nil, errDeviceGrant
	case errors.Is(err, ErrDevicePending):
		return nil, errAuthorizationPending
	case errors.Is(err, ErrDevicePolledEarly):
		return nil, errSlowDown
	case errors.Is(err, ErrDeviceExpired):
		return nil, errDeviceExpired
	case errors.Is(err, ErrDeviceDenied):
		return nil, errDeviceDenied
	case err != nil:
		return nil, fmt.Errorf("redeem device code: %w", err)
	}
	return s.respond(req, session, session.Resource, session.Scopes)
}

var (
	errDeviceGrant          = oauth.InvalidGrant("The device_code is invalid or used.")
	errAuthorizationPending = &oauth.Error{Code: oauth.CodeAuthorizationPending, Description: "The user has not decided yet."}
	errSlowDown             = &oauth.Error{Code: oauth.CodeSlowDown, Description: "Wait five seconds longer between requests from now on."}
	errDeviceExpired        = &oauth.Error{Code: oauth.CodeExpiredToken, Description: "The device_code has expired."}
	errDeviceDenied         = &oauth.Error{Code: oauth.CodeAccessDenied, Description: "The request was denied."}
)
