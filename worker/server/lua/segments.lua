-- include: server, keys
-- Messages are numbered; 4096 that follow each other are a segment of the indexes.
-- Keys: kept, segments, seq.
local SEGMENT = 4096
local function segment_of(seq)
  return math.floor(seq / SEGMENT)
end

-- A time as 48 bits.
local function as_bits(at)
  local bits, rest = '', tonumber(at)
  for _ = 1, 6 do
    bits, rest = string.char(rest % 256) .. bits, math.floor(rest / 256)
  end
  return bits
end

-- The number of the next message; where the server has lost it, one behind all that there are.
local function next_seq()
  local seq = call('GET', KEY.seq)
  if seq then
    return tonumber(seq)
  end
  local begin = 0
  for _, listed in ipairs({ call('ZRANGE', KEY.segments, 0, -1), call('HKEYS', KEY.kept) }) do
    for _, segment in ipairs(listed) do
      begin = math.max(begin, (tonumber(segment) + 1) * SEGMENT)
    end
  end
  call('SET', KEY.seq, begin)
  return begin
end
