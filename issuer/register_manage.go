package issuer

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"go.uber.org/zap"
)

// handleRegistered lets a client read, replace and delete its registration, with
// the token that it got for that. RFC 7592 section 2.
func (s *Server) handleRegistered(w http.ResponseWriter, r *http.Request) {
	registration, err := s.authenticateRegistration(r)
	if err != nil {
		s.writeRegistrationError(w, r, err)
		return
	}
	switch r.Method {
	case http.MethodPut:
		s.updateRegistration(w, r, registration)
	case http.MethodDelete:
		s.deleteRegistration(w, r, registration)
	default:
		m, err := s.readStored(registration)
		if err != nil {
			s.writeRegistrationError(w, r, fmt.Errorf("read registration: %w", err))
			return
		}
		// The secret is kept as a hash and was shown once.
		s.writeRegistration(w, http.StatusOK, registration, m, "", bearerOf(r))
	}
}

// authenticateRegistration finds the client that the path names and the token
// opens. Unknown, disabled, another's: one answer.
func (s *Server) authenticateRegistration(r *http.Request) (ClientRegistration, error) {
	id, token := strings.TrimPrefix(r.URL.Path, registerPath+"/"), bearerOf(r)
	if !hasPrefixAndBound(id, DynamicClientPrefix, 128) || !hasPrefixAndBound(token, registrationTokenPrefix, 128) {
		return ClientRegistration{}, errRegistrationToken
	}
	registration, err := s.cfg.Store.FindRegistration(r.Context(), id)
	presented := sha256.Sum256([]byte(token))
	switch {
	case errors.Is(err, ErrNotFound):
		return ClientRegistration{}, errRegistrationToken
	case err != nil:
		return ClientRegistration{}, fmt.Errorf("find registration: %w", err)
	case subtle.ConstantTimeCompare(registration.AccessToken[:], presented[:]) != 1:
		return ClientRegistration{}, errRegistrationToken
	}
	return registration, nil
}

// updateRegistration replaces all that the client said before. RFC 7592 section
// 2.2.
func (s *Server) updateRegistration(w http.ResponseWriter, r *http.Request, registration ClientRegistration) {
	members, m, err := s.readRegistration(w, r)
	if err == nil {
		err = checkUpdate(members, registration)
	}
	if err != nil {
		s.writeRegistrationError(w, r, err)
		return
	}
	// A client that had no secret and wants one gets it now; one that goes on
	// with a secret keeps the one it has.
	secret := ""
	if m.AuthMethod != methodBasic && m.AuthMethod != methodPost {
		registration.Secret = nil
	} else if registration.Secret == nil {
		secret = newClientSecret(m, &registration)
	}
	registration.Name = m.Name
	if registration.Metadata, err = json.Marshal(m); err != nil {
		s.writeRegistrationError(w, r, fmt.Errorf("update client: %w", err))
		return
	}
	err = s.cfg.Store.UpdateRegistration(r.Context(), registration, s.origin(r))
	switch {
	case errors.Is(err, ErrNotFound):
		s.writeRegistrationError(w, r, errRegistrationToken)
	case err != nil:
		s.writeRegistrationError(w, r, fmt.Errorf("update client: %w", err))
	default:
		s.audit(r, "client registration updated", zap.String("client_id", registration.ClientID))
		s.writeRegistration(w, http.StatusOK, registration, m, secret, bearerOf(r))
	}
}

// checkUpdate holds what an update may say of what is not the client's to set.
func checkUpdate(members map[string]json.RawMessage, registration ClientRegistration) error {
	for _, name := range []string{"registration_access_token", "registration_client_uri", "client_secret_expires_at", "client_id_issued_at"} {
		if members[name] != nil {
			return invalidMetadata("A member that the server sets does not belong into an update.")
		}
	}
	var id, secret string
	if err := json.Unmarshal(members["client_id"], &id); err != nil || id != registration.ClientID {
		return invalidMetadata("The client_id must be that of the registration.")
	}
	if raw := members["client_secret"]; raw != nil {
		if err := json.Unmarshal(raw, &secret); err != nil {
			return invalidMetadata("The client_secret must be the one that was issued.")
		}
		digest := HashClientSecret(secret)
		if registration.Secret == nil || subtle.ConstantTimeCompare(digest[:], registration.Secret[:]) != 1 {
			return invalidMetadata("The client_secret must be the one that was issued.")
		}
	}
	return nil
}

// deleteRegistration removes the client; its sessions end with it, on every
// node. RFC 7592 section 2.3.
func (s *Server) deleteRegistration(w http.ResponseWriter, r *http.Request, registration ClientRegistration) {
	err := s.cfg.Store.DeleteRegistration(r.Context(), registration.ClientID, registration.AccessToken, s.origin(r))
	switch {
	case errors.Is(err, ErrNotFound):
		s.writeRegistrationError(w, r, errRegistrationToken)
	case err != nil:
		s.writeRegistrationError(w, r, fmt.Errorf("delete client: %w", err))
	default:
		s.audit(r, "client registration deleted", zap.String("client_id", registration.ClientID))
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("Pragma", "no-cache")
		w.WriteHeader(http.StatusNoContent)
	}
}
