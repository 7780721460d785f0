-- Messages are numbered; 4096 that follow each other are a segment of the indexes.
local SEGMENT = 4096
local function segment_of(seq)
  return math.floor(seq / SEGMENT)
end
